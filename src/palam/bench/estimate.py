"""What a recipe will need, before anything is run."""

from dataclasses import dataclass
from typing import NamedTuple

from palam.bench.baselines.base import Amounts, Reading
from palam.bench.device_memory import Device
from palam.bench.methods import BaselineMethod
from palam.bench.plan import USUAL_SHARE, Plan, measured_rate, plan
from palam.bench.pretraining_plan import plan_pretraining
from palam.bench.recipe import Recipe
from palam.bench.task_rows import find_rows
from palam.errors import PalamError
from palam.inference.prediction import most_answer_tokens
from palam.tasks.loading import is_local
from palam.tasks.registry import get_task
from palam.tasks.task import Task
from palam.training.config import DataConfig, OptimConfig, TrainConfig
from palam.training.data import TrainingData, read_training_data
from palam.utils.device import resolve_placement
from palam.utils.languages import find_language

USUAL_ROWS = 10_000
"""Of training data that are not at hand."""
USUAL_READ_ROWS = 1_000
"""Of each language that is read, and of validation, where the data are not at hand."""
PLANNED_ALIKE = ("lr", "fusion_lr", "init", "average_weights_from")
"""Settings of training that change nothing of what a run needs."""


@dataclass(frozen=True, kw_only=True)
class MethodEstimate:
    """What one method of a recipe will need."""

    method: str
    runs: int
    """How often it is run: for each learning rate, for each seed."""
    tokens: int | None = None
    """That the two models read, in all runs; None where nothing can be said."""
    hours: float | None = None
    """Of all runs and of reading with what they give, at the usual share of the device's matrix
    rate."""
    gib: float | None = None
    """Memory of one run, in GiB."""
    note: str | None = None
    """In place of figures."""


def estimate(recipe: Recipe, rate: float | None = None) -> list[MethodEstimate]:
    """What each method will need, found without weights.

    The rows are those of the data in a folder or this package, what is trained on and what is read
    each by itself. Else they are the recipe's `max_train_samples` or 10,000, and its `read.limit`
    or 1,000 of each language. A text has 64 of the encoder's tokens, a translation as many. All
    rows are read once for each seed, and for each step of `curve`.

    Args:
        recipe: what to compare.
        rate: operations a second of the device's matrix multiplication; None measures it.

    Raises:
        PalamError: training data that cannot be read, or no method whose models can be had, such as
            where the hub does not answer. Of some methods alone it is their `note`.
    """
    amounts = _amounts(recipe)
    runtime = recipe.config().runtime
    placement = resolve_placement(runtime.device, runtime.dtype)
    if rate is None:
        rate = measured_rate(placement)
    estimates = []
    errors = []
    plans: dict[str, Plan] = {}
    for name, seeds in recipe.runs(recipe.seeds[0]):
        method = recipe.methods[name]
        try:
            if isinstance(method, BaselineMethod):
                model = recipe.config().model
                baseline = method.built()
                readings = baseline.readings(model, placement, amounts, len(seeds))
                runs = baseline.num_runs(len(seeds))
                made = _estimate_baseline(name, readings, runs, rate)
            else:
                # All rates with the first seed, then the best with the others.
                runs = len(recipe.learning_rates(name)) + len(seeds) - 1
                bridges = len(seeds) * (1 + len(recipe.curve))
                needs = _plan_once(recipe.config(name), amounts, rate, plans)
                made = _estimate_training(name, needs, runs, bridges, amounts)
        except PalamError as error:
            errors.append(error)
            made = MethodEstimate(method=name, runs=len(seeds), note=str(error))
        estimates.append(made)
    if errors and all(made.hours is None for made in estimates):
        raise errors[0]
    return estimates


def _amounts(recipe: Recipe) -> Amounts:
    """How much a recipe trains on and reads."""
    config = recipe.config()
    data = config.data
    training_data = None
    num_train = data.max_train_samples or USUAL_ROWS
    num_dev = data.max_eval_samples or USUAL_READ_ROWS
    if data.task is None or is_local(get_task(data.task), data_dir=data.data):
        training_data = read_training_data(
            data, seed=config.runtime.seed, prompt=config.model.prompt
        )
        num_train = len(training_data.train)
        num_dev = len(training_data.dev)
    task, counts = _read_counts(recipe, data, training_data)
    ours = find_language(data.text_language)
    return Amounts(
        train=num_train,
        dev=0 if recipe.trains_on_text else num_dev,
        read=sum(counts.values()),
        foreign=sum(count for code, count in counts.items() if find_language(code) != ours),
        labels=max(1, len(task.labels)),
        answer=most_answer_tokens(task) if task.has_free_answers else None,
        answer_rows=recipe.read.answer_rows,
        is_translated=task.reference_language is not None,
    )


class _ReadCounts(NamedTuple):
    """What is read."""

    task: Task
    counts: dict[str, int]
    """Rows, by language."""


def _read_counts(
    recipe: Recipe, data: DataConfig, training_data: TrainingData | None
) -> _ReadCounts:
    """How many rows are read; the usual number where they are not at hand.

    Args:
        recipe: names them.
        data: where they are.
        training_data: None where those are not at hand.
    """
    read = recipe.read
    is_at_hand = bool(read.files) or is_local(get_task(str(read.task)), data_dir=data.data)
    if training_data is not None and is_at_hand:
        task, rows = find_rows(recipe, data, training_data)
        return _ReadCounts(task, {language: len(examples) for language, examples in rows.items()})
    task = get_task(str(read.task))
    languages = read.languages or task.languages
    return _ReadCounts(task, dict.fromkeys(languages, read.limit or USUAL_READ_ROWS))


def _estimate_baseline(
    name: str, readings: list[Reading], runs: int, rate: float
) -> MethodEstimate:
    """What a baseline's readings will need.

    Args:
        name: of the method.
        readings: one model's after the other.
        runs: how often it is run.
        rate: see `estimate`.
    """
    if not readings:
        return MethodEstimate(method=name, runs=runs, note="no model reads anything")
    seconds = sum(reading.texts * reading.each.operations for reading in readings) / rate
    memory = sum(reading.each.memory_bytes for reading in readings)
    return MethodEstimate(
        method=name,
        runs=runs,
        tokens=sum(reading.texts * reading.each.tokens for reading in readings),
        hours=round(seconds / USUAL_SHARE / 3600, 2),
        gib=round(memory / 2**30, 2),
    )


def _plan_once(config: TrainConfig, amounts: Amounts, rate: float, plans: dict[str, Plan]) -> Plan:
    """What one training run needs, found once for all runs that need the same.

    Args:
        config: of the run.
        amounts: of rows.
        rate: see `estimate`.
        plans: those that were found before; a new one is added.

    Raises:
        PalamError: a base model that cannot be found or used.
    """
    usual = {name: getattr(OptimConfig, name) for name in PLANNED_ALIKE}
    key = repr(config.with_settings(**usual))
    if key not in plans:
        hardware = Device(rate=rate)
        if config.data.text_file is not None:
            plans[key] = plan_pretraining(config, hardware)
        else:
            rows = min(amounts.train, config.data.max_train_samples or amounts.train)
            plans[key] = plan(
                config.model, config.optim, config.runtime, rows=rows, hardware=hardware
            )
    return plans[key]


def _estimate_training(
    name: str, needs: Plan, runs: int, num_bridges: int, amounts: Amounts
) -> MethodEstimate:
    """What a method's training runs, and reading with what they give, will need.

    Args:
        name: of the method.
        needs: of one run.
        runs: how many.
        num_bridges: with how many bridges all rows are read.
        amounts: of rows and labels.
    """
    seconds = runs * needs.training_seconds
    if amounts.answer is None:
        text_seconds = needs.reading_seconds(amounts.labels)
    else:
        text_seconds = needs.free_answer_seconds(amounts.answer * amounts.answer_rows)
    seconds += num_bridges * amounts.read * text_seconds
    hours = seconds / USUAL_SHARE / 3600
    return MethodEstimate(
        method=name,
        runs=runs,
        tokens=runs * needs.length.batches * needs.tokens,
        hours=round(hours, 2),
        gib=round(needs.memory_bytes / 2**30, 2),
    )
