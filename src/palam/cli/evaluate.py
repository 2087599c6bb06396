"""`palam evaluate`."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt
from rich.table import Column, Table

from palam.cli._options import (
    LOADING_DEFAULTS,
    Checkpoint,
    ConfigFile,
    LoadingOptions,
    NameList,
    load_model,
)
from palam.cli._output import open_output, open_rows, print_table, write_json
from palam.errors import PalamError
from palam.tasks.loading import available, task_from_file
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task, slots
from palam.utils.languages import language_name
from palam.utils.progress import progress_bar

if TYPE_CHECKING:
    from palam.inference.evaluation import Evaluation
    from palam.models.modeling import PalamModel


@dataclass(frozen=True, kw_only=True)
class TestDataConfig:
    """What the bridge is measured on: either a task or a labelled file.

    Raises:
        PalamError: none or both of them, or a file whose one language is not given.
    """

    task: str | None = None
    """Any task of the bridge's family; `palam info` lists the tasks."""
    file: Path | None = None
    """A labelled JSONL or CSV file of your own, in place of a task."""
    languages: NameList = None
    """Codes, e.g. en,si,ta; not set is all there are."""
    split: str = "dev"
    """Split of the task."""
    limit: int | None = None
    """Rows per language, a seeded and label-stratified sample; not set is all."""
    data: Path | None = None
    """Folder of <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."""
    text_column: str | None = None
    """The file's text column, or a template over several; not set is as trained."""
    label_column: str = "label"
    """The file's label column."""

    def __post_init__(self) -> None:
        if (self.task is None) == (self.file is None):
            raise PalamError("give either --task or --file")
        if self.file is not None and len(self.languages or ()) != 1:
            raise PalamError("with --file, give the one language of its texts, e.g. --languages si")


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """Where results are written."""

    json_file: Annotated[Path | None, Parameter(name="--json")] = None
    """Write the results here."""
    predictions: Path | None = None
    """Write every prediction here, as JSON lines."""


TestDataOptions = Annotated[
    TestDataConfig | None, Parameter(name="*", group=Group("Data", sort_key=-1))
]
ResultOptions = Annotated[ResultFiles, Parameter(name="*", group=Group("Results", sort_key=2))]
NO_FILES = ResultFiles()


class TestData(NamedTuple):
    """A task's examples by language."""

    task: Task
    split: str
    examples: dict[str, list[Example]]


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
    loading: LoadingOptions = LOADING_DEFAULTS,
) -> None:
    """Measure a bridge on a task, by language.

    The task can be read in any of its languages. A labelled file of your own is measured likewise.

    Args:
        method: The likeliest label (score), or the greedy answer if it is a label (generate).
        llm_only: The LLM reads the text itself, without the bridge.
        batch_size: Texts at a time.
    """
    data = data or TestDataConfig()
    if data.task is not None:
        test = _task_data(data.task, data, loading.seed)
    else:
        test = _file_data(checkpoint, data, loading.seed)
    with contextlib.ExitStack() as files:
        # Opened now, so that a place that cannot be written to is refused before any work.
        results_file = None
        if results.json_file:
            results_file = files.enter_context(open_output(results.json_file))
        predictions = None
        if results.predictions:
            predictions = files.enter_context(open_rows(results.predictions))
        model = load_model(checkpoint, loading)
        from palam.inference.evaluation import evaluate as evaluate_model

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
        if results_file:
            write_json(results_file, evaluation.to_dict())
        if predictions:
            for prediction in evaluation.predictions:
                predictions.write({**prediction})
    print_table(_table(evaluation, model))


def _task_data(name: str, data: TestDataConfig, seed: int) -> TestData:
    from palam.inference.evaluation import load_languages

    task = get_task(name)
    languages = data.languages
    if languages is None:
        languages = available(task, data_dir=data.data).get(data.split, [])
    if not languages:
        raise PalamError(
            f"{name} has no {data.split} split here; give --languages, --split or --data"
        )
    examples = load_languages(
        task, data.split, languages, data_dir=data.data, limit=data.limit, seed=seed
    )
    return TestData(task, data.split, examples)


def _file_data(checkpoint: str, data: TestDataConfig, seed: int) -> TestData:
    """A file's rows, with the labels and the form of the text that the bridge was trained with."""
    from palam.models.checkpoint import load_bridge

    trained = load_bridge(checkpoint).config.task
    if not trained:
        raise PalamError("this bridge was not trained for a task; it has no labels to measure")
    template = trained["text"]
    text_column = data.text_column
    if text_column is None:
        text_column = "text" if slots(template) == {"text"} else template
    task, examples = task_from_file(
        str(data.file),
        text_column=text_column,
        label_column=data.label_column,
        labels=dict(trained["labels"]),
    )
    if slots(template) != set(task.fields):
        template = task.text
    task = replace(
        task,
        name=trained["name"],
        family=trained["family"],
        text=template,
        paper_text=template,
    )
    assert data.languages is not None  # exactly one, as the options were checked
    sampled = sample(examples, data.limit, seed)
    return TestData(task, str(data.file), {data.languages[0]: sampled})


def _table(evaluation: "Evaluation", model: "PalamModel") -> Table:
    """Accuracy by language, and where the encoder read the texts, what it could not read."""
    stats = model.processor.stats  # empty if the LLM read the texts itself
    names = ["n", "accuracy", "95 % interval"]
    if stats:
        names += ["cut", "unknown"]
    columns = [Column(name, justify="right") for name in names]
    table = Table("language", *columns, title=f"{evaluation.task}, {evaluation.split}")
    table.title_justify = "left"
    table.caption_justify = "left"
    results = evaluation.to_dict()["results"]
    for code, result in results.items():
        low, high = result["ci95"]
        cells = [f"{result['n']:,}", f"{result['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
        if code in stats:
            cells += [f"{stats[code].cut:,}", f"{stats[code].unknown_share:.2%}"]
        table.add_row(f"{language_name(code)} ({code})", *cells)
    if len(results) > 1:
        table.add_section()
        table.add_row(f"mean of {len(results)}", "", f"{evaluation.macro:.1%}")
    if stats:
        table.caption = (
            f"cut: at {model.processor.max_length} tokens\nunknown: to the encoder, of all tokens"
        )
    return table
