"""What `palam evaluate` measures a bridge on: a task's examples, or those of a labelled file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Group, Parameter

from palam.cli._options import NameList
from palam.errors import PalamError
from palam.tasks.inspection import StoredRows
from palam.tasks.loading import available, task_from_file
from palam.tasks.readers import RowSource, language_of
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.config import FileFormat
from palam.utils.languages import resolve_language
from palam.utils.settings import check_least

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel
    from palam.models.task_record import TaskRecord

ALL_ROWS = "all"
"""In place of a language's code, where a file's rows have none."""
FILE_OPTIONS = {
    "text_column": "--text-column",
    "label_column": "--label-column",
    "file_format": "--format",
    "sheet": "--sheet",
    "language_column": "--language-column",
}
"""The settings that only a file has, and the option of each."""


@dataclass(frozen=True, kw_only=True)
class TestDataConfig:
    """What the bridge is measured on: either a task or a labelled file.

    Raises:
        PalamError: none or both of them; an option of files without one; or several languages for
            a file whose rows do not name theirs.
    """

    task: str | None = None
    """Any task of the bridge's family; `palam info` lists the tasks."""
    file: Path | None = None
    """A labelled file of your own, in place of a task: .csv, .tsv, .xlsx, .parquet, .jsonl,
    .json."""
    languages: NameList = None
    """Codes, e.g. en,si,ta; not set is all there are. Of a file the one of its texts, which
    NLLB-style encoders need."""
    split: str = "dev"
    """Split of the task."""
    limit: int | None = None
    """Rows per language, a seeded and label-stratified sample; not set is all."""
    data: Path | None = None
    """Folder of <task>/<split>.<language>.jsonl; else PALAM_DATA, else the hub."""
    text_column: str | None = None
    """The file's text column, or a template over several; not set is as trained."""
    label_column: str | None = None
    """The file's label column; not set is as trained."""
    language_column: str | None = None
    """The file's column of each row's language, in place of --languages."""
    file_format: Annotated[FileFormat | None, Parameter(name="--format")] = None
    """The file's format; not set is as its name ends."""
    sheet: str | None = None
    """The workbook's sheet; not set is the first."""

    def __post_init__(self) -> None:
        if (self.task is None) == (self.file is None):
            raise PalamError("give either --task or --file")
        check_least(self, limit=1)
        if self.file is None:
            self._refuse_file_options()
        elif self.language_column is None and len(self.languages or ()) > 1:
            raise PalamError(
                "with --file, give the one language of its texts, e.g. --languages si, or "
                "--language-column where each row has its own"
            )

    @property
    def has_no_language(self) -> bool:
        """Whether nothing says which language a file's texts are in."""
        return self.file is not None and not self.languages and self.language_column is None

    def _refuse_file_options(self) -> None:
        for name, option in FILE_OPTIONS.items():
            if getattr(self, name) is not None:
                raise PalamError(f"{option} needs --file")


TestDataOptions = Annotated[
    TestDataConfig | None, Parameter(name="*", group=Group("Data", sort_key=-1))
]


class TestData(NamedTuple):
    """A task's examples by language."""

    task: Task
    split: str
    examples: dict[str, list[Example]]


def read_test_data(checkpoint: str, data: TestDataConfig, seed: int) -> TestData:
    """The examples that a bridge is measured on.

    Args:
        checkpoint: the bridge's.
        data: what to read.
        seed: of the samples.

    Raises:
        PalamError: data that are missing or wrong, or a bridge that was not trained for a task.
    """
    if data.task is not None:
        return _task_data(data.task, data, seed)
    return _file_data(checkpoint, data, seed)


def check_language_is_known(model: "PalamModel", data: TestDataConfig, *, llm_only: bool) -> None:
    """Refuse texts of no language where the encoder must be told it.

    Args:
        model: whose encoder it is.
        data: what is read.
        llm_only: whether the LLM reads the texts itself.

    Raises:
        PalamError: it is such an encoder, and no language is given.
    """
    uses_encoder = not (llm_only or model.config.llm_only)
    must_be_told = hasattr(model.processor.encoder_tokenizer, "src_lang")
    if data.has_no_language and uses_encoder and must_be_told:
        raise PalamError(
            "this encoder must be told the language of the texts; give it, e.g. --languages si, or "
            "--language-column where each row has its own"
        )


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

    trained = load_bridge(checkpoint).config.trained_task
    if trained is None:
        raise PalamError("this bridge was not trained for a task; it has no labels to measure")
    rows = StoredRows(RowSource(str(data.file), file_format=data.file_format, sheet=data.sheet))
    task, examples = task_from_file(
        rows,
        text_column=data.text_column or _trained_text_column(trained),
        label_column=data.label_column or trained.columns.get("label", "label"),
        labels=dict(trained.words_by_label),
    )
    template = trained.text if trained.slots == set(task.fields) else task.text
    task = replace(
        task,
        name=trained.name,
        family=trained.family,
        text=template,
        paper_text=template,
    )
    by_language = _by_language(rows, examples, data)
    sampled = {code: sample(some, data.limit, seed) for code, some in by_language.items()}
    return TestData(task, str(data.file), sampled)


def _trained_text_column(task: "TaskRecord") -> str:
    """The text column that a bridge was trained with, or a template over several."""
    if task.slots == {"text"}:
        return task.columns.get("text", "text")
    return task.text


def _by_language(
    rows: StoredRows, examples: list[Example], data: TestDataConfig
) -> dict[str, list[Example]]:
    """The examples of each language, in the order in which they first appear, or as asked for.

    Raises:
        PalamError: a row without a known language, or a language that no row has.
    """
    if data.language_column is None:
        code = data.languages[0] if data.languages else ALL_ROWS
        return {code: examples}
    by_language: dict[str, list[Example]] = {}
    for example in examples:
        place, row = rows.stored[example.row]
        code = language_of(row, data.language_column, place)
        # Codes that mean the same are one language, under the first one's spelling.
        code = resolve_language(code, list(by_language)) or code
        by_language.setdefault(code, []).append(example)
    if data.languages is None:
        return by_language
    asked = {}
    for name in data.languages:
        found = resolve_language(name, list(by_language))
        if found is None:
            known = ", ".join(by_language)
            raise PalamError(f"{rows.name}: no row is in {name!r}; the languages are: {known}")
        asked[found] = by_language[found]
    return asked
