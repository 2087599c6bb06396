"""Where `palam classify` and `palam generate` take their texts from: one text, or a file's rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Group, Parameter

from palam.errors import PalamError
from palam.tasks.readers import NumberedRow, RowSource, language_of, text_of
from palam.tasks.text_template import fill, slots

TEXT = "text"
"""The column of the text where no other is named, and that of plain text."""


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
    """Texts: .jsonl, .json, .csv, .tsv, .xlsx, .parquet or .txt, a text a line; - is stdin."""
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
    """Where to write, .jsonl, .json, .csv, .tsv, .xlsx or .parquet; not set is stdout."""
    resume: bool = False
    """Go on after the finished rows of a run that was stopped, in <out>.partial."""
    overwrite: bool = False
    """Replace <out>, if it exists, and what an unfinished run has left."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.file is None):
            raise PalamError("give either --text or --file")
        if self.language is not None and self.language_column is not None:
            raise PalamError("give either --language or --language-column")
        if self.file is None:
            self._refuse_file_options()
        else:
            self.open()
        if self.resume and (self.file is None or self.out is None):
            raise PalamError("--resume needs --file and --out")

    def _refuse_file_options(self) -> None:
        options = {
            "--format": self.file_format,
            "--sheet": self.sheet,
            "--language-column": self.language_column,
        }
        for name, value in options.items():
            if value is not None:
                raise PalamError(f"{name} needs --file")

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
    """The first one's number among all rows, from 0."""
    rows: list[NumberedRow]
    texts: list[str]
    languages: list[str | None]


class TextForm(NamedTuple):
    """How a row becomes the text that the model reads."""

    template: str
    """With a slot for each of the columns."""
    columns: dict[str, str]
    """The user's column for each of the template's slots."""
    is_named: bool
    """Whether the user has named the column."""

    @classmethod
    def of(cls, task: dict[str, Any] | None, source: SourceConfig) -> "TextForm":
        """The form of the bridge's task where its columns are known, else the text as it is.

        They are not known for one text, or one column, of a task whose text has several.
        """
        template = str(task["text"]) if task else f"{{{TEXT}}}"
        names = sorted(slots(template))
        if len(names) != 1 and (source.text is not None or source.column is not None):
            template, names = f"{{{TEXT}}}", [TEXT]
        if source.column is not None:
            return cls(template, {names[0]: source.column}, is_named=True)
        trained = (task or {}).get("columns")
        trained_columns = trained if isinstance(trained, dict) else {}
        columns = {name: str(trained_columns.get(name, name)) for name in names}
        return cls(template, columns, is_named=False)

    @property
    def expected_column(self) -> str | None:
        """A column that the file must have; None is one that plain text can stand for."""
        if self.is_named or len(self.columns) != 1:
            return next(iter(self.columns.values()))
        return None

    def text(self, numbered: NumberedRow) -> str:
        """The text of a row.

        A row that is a text and nothing else, as those of plain text are, needs not have the one
        column that the bridge was trained on.

        Raises:
            PalamError: a column that it does not have, or that holds no text.
        """
        hint = "" if self.is_named else "; name one with --column"
        place, row = numbered
        fields = {}
        for name, column in self.columns.items():
            if self.expected_column is None and column not in row and list(row) == [TEXT]:
                column = TEXT
            fields[name] = text_of(row, column, place, hint=hint)
        return fill(self.template, fields)

    def of_one_text(self, text: str) -> str:
        """What the model reads of a text that stands in no file."""
        return fill(self.template, dict.fromkeys(self.columns, text))


def one_text(source: SourceConfig, form: TextForm) -> Chunk:
    """The chunk of a text that is given on the command line."""
    text = str(source.text)
    row = NumberedRow("the text", {TEXT: text})
    return Chunk(0, [row], [form.of_one_text(text)], [source.language])


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
        PalamError: a row that cannot be read, or that has no text or no language.
    """
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        texts = [form.text(numbered) for numbered in chunk]
        languages = [_language(numbered, source) for numbered in chunk]
        yield Chunk(start, chunk, texts, languages)
        start += len(chunk)


def _language(numbered: NumberedRow, source: SourceConfig) -> str | None:
    if source.language_column is None:
        return source.language
    return language_of(numbered.row, source.language_column, numbered.place)
