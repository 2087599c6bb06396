"""What a recipe will need, before anything is run."""

from dataclasses import dataclass

from palam.bench.methods import BaselineMethod
from palam.bench.plan import USUAL_SHARE, plan
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.tasks.loading import is_local
from palam.tasks.registry import get_task
from palam.training.config import TrainConfig
from palam.training.data import read_training_data

USUAL_ROWS = 10_000
"""Of training data that are not at hand."""


@dataclass(frozen=True, kw_only=True)
class MethodEstimate:
    """What one method of a recipe will need."""

    method: str
    runs: int
    """How often it is run: for each learning rate, for each seed."""
    tokens: int | None = None
    """That the two models read, in all runs; None where nothing can be said."""
    hours: float | None = None
    """Of all runs, at the usual share of the device's matrix rate."""
    gib: float | None = None
    """Memory of one run, in GiB."""
    note: str | None = None
    """In place of figures."""


def estimate(recipe: Recipe, rate: float | None = None) -> list[MethodEstimate]:
    """What each method will need, found without weights.

    The rows are those of the data in a folder or this package, else the recipe's
    `max_train_samples` or 10,000; a text has 64 of the encoder's tokens.

    Args:
        recipe: what to compare.
        rate: operations a second of the device's matrix multiplication; None measures it.

    Raises:
        PalamError: training data that cannot be read. A base model whose configuration cannot be
            had is a `note`.
    """
    rows = _training_rows(recipe.config())
    estimates = []
    for name, seeds in recipe.runs(recipe.seeds[0]):
        if isinstance(recipe.methods[name], BaselineMethod):
            note = "nothing is trained with the LLM"
            estimates.append(MethodEstimate(method=name, runs=len(seeds), note=note))
            continue
        # All rates with the first seed, then the best with the others.
        runs = len(recipe.learning_rates(name)) + len(seeds) - 1
        estimates.append(_estimate_training(name, recipe.config(name), runs, rows, rate))
    return estimates


def _training_rows(config: TrainConfig) -> int:
    """How many rows a run trains on."""
    data = config.data
    if data.task is None or is_local(get_task(data.task), data_dir=data.data):
        training_data = read_training_data(
            data, seed=config.runtime.seed, prompt=config.model.prompt
        )
        return len(training_data.train)
    return data.max_train_samples or USUAL_ROWS


def _estimate_training(
    name: str, config: TrainConfig, runs: int, rows: int, rate: float | None
) -> MethodEstimate:
    """What a method's training runs will need.

    Args:
        name: of the method.
        config: of one run.
        runs: how many.
        rows: of the recipe's training data.
        rate: see `estimate`.
    """
    rows = min(rows, config.data.max_train_samples or rows)
    try:
        needs = plan(config.model, config.optim, config.runtime, rows=rows, rate=rate)
    except PalamError as error:
        return MethodEstimate(method=name, runs=runs, note=str(error))
    steps = needs.steps
    if config.optim.max_steps > 0:
        steps = min(steps, config.optim.max_steps)
    hours = runs * steps * needs.step_seconds / USUAL_SHARE / 3600
    return MethodEstimate(
        method=name,
        runs=runs,
        tokens=runs * steps * needs.tokens,
        hours=round(hours, 2),
        gib=round(needs.memory_bytes / 2**30, 2),
    )
