"""Where `palam classify` and `palam generate` take their texts from: one text, or a file's rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Group, Parameter

from palam.errors import PalamError
from palam.inference.text_form import TEXT, TextForm
from palam.models.task_record import TaskRecord, text_alone
from palam.scale.failures import Failure
from palam.scale.shards import corpus_files, is_corpus
from palam.tasks.formats import Row
from palam.tasks.readers import NumberedRow, RowSource, language_of


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The texts, and where the results go; a file that cannot be read is refused at once.

    Raises:
        PalamError: none or both of text and file; an option of files without one; both kinds of
            language; a file or a format that cannot be read; or nothing that could be resumed.
    """

    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """One text."""
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Texts: .jsonl, .json, .csv, .tsv, .xlsx, .parquet or .txt, a text a line; - is stdin.
    Or many files: a folder, or a pattern such as 'texts/*.parquet'."""
    file_format: Annotated[str | None, Parameter(name="--format")] = None
    """Format of --file, e.g. csv or text; not set is by the ending of its name."""
    sheet: str | None = None
    """Sheet of a workbook; not set is the first."""
    column: str | None = None
    """The column of the text; not set is the one trained on, or text."""
    language: str | None = None
    """Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it."""
    language_column: str | None = None
    """The column of each row's language, in place of --language."""
    out: Path | None = None
    """Where to write, .jsonl, .json, .csv, .tsv, .xlsx or .parquet; not set is stdout. Of many
    files, a folder."""
    resume: bool = False
    """Go on after the finished rows of a run that was stopped, in <out>.partial."""
    overwrite: bool = False
    """Replace <out>, if it exists, and what an unfinished run has left."""
    keep_errors: bool = False
    """Say in a column "error" why a row cannot be read, in place of ending the run; of many files
    this is always so."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.file is None):
            raise PalamError("give either --text or --file")
        if self.language is not None and self.language_column is not None:
            raise PalamError("give either --language or --language-column")
        if self.file is None:
            self._refuse_file_options()
        elif self.is_corpus:
            self._check_corpus()
        else:
            self.open()
        if self.resume and (self.file is None or self.out is None):
            raise PalamError("--resume needs --file and --out")

    @property
    def is_corpus(self) -> bool:
        """Whether many files are named."""
        return self.file is not None and is_corpus(self.file)

    def _check_corpus(self) -> None:
        """Refuse many files without a folder for their results, which is another one."""
        files = corpus_files(str(self.file))
        if self.out is None:
            raise PalamError(f"{self.file} is many files; give a folder for the results, --out")
        out = self.out.absolute()
        if out.is_file():
            raise PalamError(f"{self.out} is a file; of many files, --out is a folder")
        folder = Path(str(self.file)).absolute()
        if folder in (out, *out.parents):
            raise PalamError(f"{self.out} is in the folder that is read; give another --out")
        for file in files:
            if out in file.path.absolute().parents:
                raise PalamError(f"{self.out} holds files that are read; give another --out")

    def _refuse_file_options(self) -> None:
        options: dict[str, object] = {
            "--format": self.file_format,
            "--sheet": self.sheet,
            "--language-column": self.language_column,
            "--keep-errors": self.keep_errors or None,
        }
        for name, value in options.items():
            if value is not None:
                raise PalamError(f"{name} needs --file")

    @property
    def text_column(self) -> str | None:
        """The column of the text, if one is named; a text alone stands in the column `text`."""
        return self.column if self.text is None else TEXT

    def open(self) -> RowSource:
        """The file, of which nothing is read yet.

        Raises:
            PalamError: it cannot be read.
        """
        return RowSource(str(self.file), file_format=self.file_format, sheet=self.sheet)


SourceOptions = Annotated[
    SourceConfig | None, Parameter(name="*", group=Group("Texts", sort_key=-1))
]


class Chunk(NamedTuple):
    """Some rows, and what the model reads of each."""

    start: int
    """The first row's number among all rows, from 0."""
    rows: list[NumberedRow]
    texts: list[str]
    """Of the rows that can be read."""
    languages: list[str | None]
    """Of each text."""
    failures: dict[int, Failure]
    """Why rows cannot be read, by their places in `rows`."""

    def with_failures(self, results: Iterable[Row | Failure]) -> Iterator[Row | Failure]:
        """What became of each row, from the results of the texts."""
        remaining = iter(results)
        for place in range(len(self.rows)):
            failure = self.failures.get(place)
            yield next(remaining) if failure is None else failure


def one_row(source: SourceConfig) -> NumberedRow:
    """The row of a text that is given on the command line."""
    return NumberedRow("the text", {TEXT: str(source.text)})


def one_text(source: SourceConfig, task: TaskRecord | None) -> Chunk:
    """The chunk of a text that is given on the command line.

    Args:
        source: with the text.
        task: that the bridge was trained for, or None.
    """
    text = text_alone(task, str(source.text))
    return Chunk(0, [one_row(source)], [text], [source.language], {})


def read_chunks(
    rows: Iterable[NumberedRow], form: TextForm, source: SourceConfig, size: int, start: int
) -> Iterator[Chunk]:
    """The rows with their texts and languages, some at a time.

    Args:
        rows: of the file.
        form: how a row becomes a text.
        source: which names the language, or its column.
        size: rows of a chunk; the last one has fewer.
        start: the number of the first row, from 0.

    Raises:
        PalamError: a row that cannot be read, or that has no text or no language; where errors are
            kept, the former alone.
    """
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        texts = []
        languages = []
        failures = {}
        for place, numbered in enumerate(chunk):
            try:
                text = form.text(numbered)
                languages.append(_language(numbered, source))
                texts.append(text)
            except PalamError as error:
                if not source.keep_errors:
                    raise
                failures[place] = Failure(str(error))
        yield Chunk(start, chunk, texts, languages, failures)
        start += len(chunk)


def _language(numbered: NumberedRow, source: SourceConfig) -> str | None:
    if source.language_column is None:
        return source.language
    return language_of(numbered.row, source.language_column, numbered.place)
