"""`palam evaluate`."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from palam.cli._evaluation_tables import evaluation_tables
from palam.cli._options import (
    SEEDED_LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    SeededLoadingOptions,
    load_model,
)
from palam.cli._output import open_output, print_table, write_json
from palam.cli._test_data import (
    TestData,
    TestDataConfig,
    TestDataOptions,
    check_language_is_known,
    read_test_data,
)
from palam.errors import PalamError
from palam.tasks.writers import json_line
from palam.utils.progress import progress_bar

if TYPE_CHECKING:
    from palam.inference.evaluation import Evaluation
    from palam.inference.evaluation_page import CertaintyRow


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """What is told beside the table, and where results are written."""

    least_certain: PositiveInt | None = None
    """Also show so many rows of which the bridge is the least certain."""
    json_file: Annotated[Path | None, Parameter(name="--json")] = None
    """Write the results here."""
    html_file: Annotated[Path | None, Parameter(name="--html")] = None
    """Write them here as a page, with the confusion of labels as a picture."""
    predictions: Path | None = None
    """Write every prediction here, as JSON lines."""
    record: bool = False
    """Keep the results with the bridge: in its results.json and its model card."""


ResultOptions = Annotated[ResultFiles, Parameter(name="*", group=Group("Results", sort_key=2))]
NO_FILES = ResultFiles()


def evaluate(
    checkpoint: Checkpoint,
    /,
    *,
    data: TestDataOptions = None,
    method: Literal["score", "generate"] = "score",
    llm_only: bool = False,
    batch_size: PositiveInt = 32,
    config: ConfigFile = None,
    results: ResultOptions = NO_FILES,
    loading: SeededLoadingOptions = SEEDED_LOADING_DEFAULTS,
) -> None:
    """Measure a bridge on a task, by language.

    The task can be read in any of its languages. A labelled file of your own is measured likewise.
    Of one language, the figures of each label and the confusion of labels are printed too.

    Args:
        method: The likeliest label (score), or the greedy answer if it is a label (generate).
        llm_only: The LLM reads the text itself, without the bridge.
        batch_size: Texts at a time.
    """
    data = data or TestDataConfig()
    if results.record:
        _check_recordable(checkpoint, llm_only)
    if results.least_certain is not None and method != "score":
        raise PalamError("--least-certain needs --method score")
    test = read_test_data(checkpoint, data, loading.seed)
    if results.least_certain is not None and test.task.number:
        raise PalamError(f"--least-certain needs a task with labels, which {test.task.name} is not")
    with contextlib.ExitStack() as files:
        # Opened now, so that a place that cannot be written to is refused before any work.
        json_file, page_file, predictions_file = [
            None if path is None else files.enter_context(open_output(path))
            for path in (results.json_file, results.html_file, results.predictions)
        ]
        model = load_model(checkpoint, loading)
        check_language_is_known(model, data, llm_only=llm_only)
        from palam.inference.evaluation import evaluate as evaluate_model
        from palam.inference.evaluation_page import certainty_rows, evaluation_page

        num_texts = sum(len(examples) for examples in test.examples.values())
        with progress_bar("evaluating", num_texts) as advance:
            evaluation = evaluate_model(
                model,
                test.task,
                test.split,
                test.examples,
                name=checkpoint,
                method=method,
                llm_only=llm_only,
                batch_size=batch_size,
                progress=advance,
            )
        uncertain = certainty_rows(evaluation, _texts(test), results.least_certain or 0)
        if json_file:
            write_json(json_file, _report(evaluation, uncertain))
        if page_file:
            page_file.write(evaluation_page(evaluation, uncertain).encode(errors="replace"))
        if predictions_file:
            for prediction in evaluation.predictions:
                predictions_file.write(json_line({**prediction}) + b"\n")
    if results.record:
        from palam.inference.record import record_results

        record_results(checkpoint, evaluation)
    for table in evaluation_tables(evaluation, model.processor, uncertain):
        print_table(table)


def _check_recordable(checkpoint: str, llm_only: bool) -> None:
    """Refuse to record, before any work, what is not the bridge's or cannot be kept with it."""
    from palam.inference.record import check_recordable

    if llm_only:
        raise PalamError("--record keeps what the bridge reaches; give no --llm-only")
    check_recordable(checkpoint)


def _texts(test: TestData) -> dict[tuple[str, int], str]:
    """The text of each example, by language and row."""
    texts = {}
    for language, examples in test.examples.items():
        for example in examples:
            texts[language, example.row] = test.task.render(example)
    return texts


def _report(evaluation: "Evaluation", uncertain: "Sequence[CertaintyRow]") -> dict[str, Any]:
    report = evaluation.to_report()
    if uncertain:
        report["least_certain"] = [row._asdict() for row in uncertain]
    return report
