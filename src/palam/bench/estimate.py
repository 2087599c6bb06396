"""What a recipe will need, before anything is run."""

from dataclasses import dataclass
from typing import NamedTuple

from palam.bench.methods import BaselineMethod
from palam.bench.plan import USUAL_SHARE, plan
from palam.bench.recipe import Recipe
from palam.bench.task_rows import find_rows
from palam.errors import PalamError
from palam.tasks.loading import is_local
from palam.tasks.registry import get_task
from palam.training.config import TrainConfig
from palam.training.data import read_training_data

USUAL_ROWS = 10_000
"""Of training data that are not at hand."""
USUAL_READ_ROWS = 1_000
"""Of each language that is read, where the data are not at hand."""


@dataclass(frozen=True, kw_only=True)
class MethodEstimate:
    """What one method of a recipe will need."""

    method: str
    runs: int
    """How often it is run: for each learning rate, for each seed."""
    tokens: int | None = None
    """That the two models read, in all runs; None where nothing can be said."""
    hours: float | None = None
    """Of all runs and of reading with their bridges, at the usual share of the device's matrix
    rate."""
    gib: float | None = None
    """Memory of one run, in GiB."""
    note: str | None = None
    """In place of figures."""


class _Amounts(NamedTuple):
    """How much a recipe trains on and reads.

    Attributes:
        train: training rows of a run.
        read: rows that are read with each bridge, in all languages.
        labels: of each of them.
    """

    train: int
    read: int
    labels: int


def estimate(recipe: Recipe, rate: float | None = None) -> list[MethodEstimate]:
    """What each method will need, found without weights.

    The rows are those of the data in a folder or this package. Else they are the recipe's
    `max_train_samples` or 10,000, and its `read.limit` or 1,000 of each language. A text has 64 of
    the encoder's tokens. All rows are read once for each seed, and for each step of `curve`.

    Args:
        recipe: what to compare.
        rate: operations a second of the device's matrix multiplication; None measures it.

    Raises:
        PalamError: training data that cannot be read. A base model whose configuration cannot be
            had is a `note`.
    """
    amounts = _amounts(recipe)
    estimates = []
    for name, seeds in recipe.runs(recipe.seeds[0]):
        if isinstance(recipe.methods[name], BaselineMethod):
            note = "nothing is trained with the LLM"
            estimates.append(MethodEstimate(method=name, runs=len(seeds), note=note))
            continue
        # All rates with the first seed, then the best with the others.
        runs = len(recipe.learning_rates(name)) + len(seeds) - 1
        num_bridges = len(seeds) * (1 + len(recipe.curve))
        estimates.append(
            _estimate_training(name, recipe.config(name), runs, num_bridges, amounts, rate)
        )
    return estimates


def _amounts(recipe: Recipe) -> _Amounts:
    """How much a recipe trains on and reads."""
    config = recipe.config()
    data = config.data
    if data.task is None or is_local(get_task(data.task), data_dir=data.data):
        training_data = read_training_data(
            data, seed=config.runtime.seed, prompt=config.model.prompt
        )
        task, rows = find_rows(recipe, data, training_data)
        num_read = sum(len(examples) for examples in rows.values())
        return _Amounts(len(training_data.train), num_read, len(task.labels))
    task = get_task(str(recipe.read.task))
    languages = recipe.read.languages or task.languages
    num_read = len(languages) * (recipe.read.limit or USUAL_READ_ROWS)
    return _Amounts(data.max_train_samples or USUAL_ROWS, num_read, len(task.labels))


def _estimate_training(
    name: str,
    config: TrainConfig,
    runs: int,
    num_bridges: int,
    amounts: _Amounts,
    rate: float | None,
) -> MethodEstimate:
    """What a method's training runs, and reading with what they give, will need.

    Args:
        name: of the method.
        config: of one run.
        runs: how many.
        num_bridges: with how many bridges all rows are read.
        amounts: of rows and labels.
        rate: see `estimate`.
    """
    rows = min(amounts.train, config.data.max_train_samples or amounts.train)
    try:
        needs = plan(config.model, config.optim, config.runtime, rows=rows, rate=rate)
    except PalamError as error:
        return MethodEstimate(method=name, runs=runs, note=str(error))
    steps = needs.steps
    if config.optim.max_steps > 0:
        steps = min(steps, config.optim.max_steps)
    seconds = runs * steps * needs.step_seconds
    seconds += num_bridges * amounts.read * needs.reading_seconds(max(1, amounts.labels))
    hours = seconds / USUAL_SHARE / 3600
    return MethodEstimate(
        method=name,
        runs=runs,
        tokens=runs * steps * needs.tokens,
        hours=round(hours, 2),
        gib=round(needs.memory_bytes / 2**30, 2),
    )
