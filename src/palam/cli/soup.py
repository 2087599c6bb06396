"""`palam soup`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from palam.cli._options import (
    SEEDED_LOADING_DEFAULTS,
    ConfigFile,
    SeededLoadingOptions,
    load_model,
    silence_libraries,
)
from palam.cli._output import check_writable, print_table
from palam.cli._test_data import (
    TestData,
    TestDataConfig,
    TestDataOptions,
    check_language_is_known,
    read_test_data,
)
from palam.errors import PalamError
from palam.tasks.registry import get_task

if TYPE_CHECKING:
    from torch import Tensor

    from palam.models.bridge import PalamBridge
    from palam.models.modeling import PalamModel
    from palam.models.soup import GreedySoup

ENGLISH = ["en"]
"""What chooses, where no languages are named."""


def soup(
    checkpoints: Annotated[list[str], Parameter(help="Bridges from one start: folders, hub ids.")],
    /,
    *,
    out: Path,
    data: TestDataOptions = None,
    config: ConfigFile = None,
    loading: SeededLoadingOptions = SEEDED_LOADING_DEFAULTS,
) -> None:
    """Make one bridge of several: the mean of their weights.

    They must have been trained from one start (--init-from); the mean then often reads better than
    each of them, in the time that one takes. With a task or a labelled file, its English validation
    rows choose which are averaged: the best one, and each further one with which the loss of the
    labels does not rise (--languages names other rows). Without, all are.

    Args:
        out: The new bridge's folder.
    """
    from palam.models.checkpoint import CHECKPOINT_MARKER
    from palam.models.soup import check_output, load_alike, mean_weights, write_soup
    from palam.utils.files import check_replaceable

    check_writable(out)
    check_replaceable(out, CHECKPOINT_MARKER)
    check_output(out, checkpoints)
    silence_libraries()
    bridges = load_alike(checkpoints)
    names = [Path(checkpoint).name for checkpoint in checkpoints]
    results: dict[str, str | float] = {}
    if data is not None:
        test = _validation_data(checkpoints[0], data, loading.seed)
        model = load_model(checkpoints[0], loading)
        check_language_is_known(model, data, llm_only=False)
        found = _choose(model, bridges, test)
        print_table(_table(names, found))
        results["validation_label_loss"] = found.loss
        bridges = [bridges[place] for place in found.chosen]
        names = [names[place] for place in found.chosen]
    results["mean_of_the_weights_of"] = ", ".join(names)
    write_soup(out, checkpoints[0], mean_weights(bridges), results)
    print(f"the mean of {len(bridges)} bridges saved to {out}", file=sys.stderr)


def _validation_data(checkpoint: str, data: TestDataConfig, seed: int) -> TestData:
    """The rows that choose: in English, where nothing else is asked for.

    Raises:
        PalamError: a task without labels, or data that are missing or wrong.
    """
    if data.task is not None and get_task(data.task).has_free_answers:
        raise PalamError(f"{data.task} has no labels, by whose loss bridges could be chosen")
    if data.task is not None and data.languages is None:
        data = replace(data, languages=ENGLISH)
    return read_test_data(checkpoint, data, seed)


def _choose(model: "PalamModel", bridges: "Sequence[PalamBridge]", test: TestData) -> "GreedySoup":
    """Which bridges are averaged; see [`greedy_soup`].

    Args:
        model: of one of them, whose base models and prompt all have; its bridge is changed.
        bridges: of [`load_alike`].
        test: the validation rows.
    """
    from palam.inference.evaluation import evaluate
    from palam.models.soup import greedy_soup
    from palam.utils.progress import progress_bar

    num_texts = sum(len(examples) for examples in test.examples.values())
    num_evaluations = 2 * len(bridges) - 1  # each alone, and with those before it
    with progress_bar("choosing", num_texts * num_evaluations) as advance:

        def loss(weights: "Mapping[str, Tensor]") -> float:
            model.bridge.load_state_dict(weights)
            evaluation = evaluate(model, test.task, test.split, test.examples, progress=advance)
            return evaluation.label_loss

        return greedy_soup(bridges, loss)


def _table(names: Sequence[str], found: "GreedySoup") -> Table:
    """Each bridge's loss, and whether it is averaged."""
    loss = Column("loss of the labels", justify="right")
    table = Table("bridge", loss, "averaged", box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(names):
        is_averaged = "yes" if place in found.chosen else "no"
        table.add_row(name, f"{found.alone[place]:.3f}", is_averaged)
    table.add_row("their mean", f"{found.loss:.3f}", "")
    return table
