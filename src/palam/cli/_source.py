"""Where `palam classify` and `palam generate` take their texts from: one text, or a file's rows."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Group, Parameter

from palam.cli._output import Row, RowWriter
from palam.errors import PalamError
from palam.tasks.columns import colliding_columns
from palam.tasks.readers import STANDARD_INPUT, NumberedRow, numbered_rows, text_of
from palam.tasks.task import slots
from palam.utils.progress import progress_bar

CHUNK_SIZE = 1024
"""Rows of a file in memory at a time."""
RESULT_COLUMNS = ("prediction", "scores", "answer")
"""The columns that the commands add."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The texts, and where the results go; a file that cannot be read is refused at once.

    Raises:
        PalamError: none or both of text and file, or nothing that could be resumed.
        OSError: a file that cannot be opened.
    """

    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """One text."""
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Texts: JSONL, CSV, or plain text with one text a line; - is standard input."""
    column: str | None = None
    """The column of the text; not set is text, or the columns of the bridge's task."""
    language: str | None = None
    """Language of the texts, e.g. si or sin_Sinh; NLLB-style encoders need it."""
    out: Path | None = None
    """Where to write, as JSON lines; not set is standard output."""
    resume: bool = False
    """Keep finished rows in <out>.partial; given again, continue after them."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.file is None):
            raise PalamError("give either --text or --file")
        from_file = self.file not in (None, STANDARD_INPUT)
        if from_file:
            Path(str(self.file)).open("rb").close()
        if self.resume and (not from_file or self.out is None):
            raise PalamError("--resume needs --file and --out")


SourceOptions = Annotated[
    SourceConfig | None, Parameter(name="*", group=Group("Texts", sort_key=-1))
]


def row_progress(
    source: SourceConfig, description: str
) -> AbstractContextManager[Callable[[int], None] | None]:
    """A progress bar, but not where the rows are printed to the terminal themselves."""
    if source.text is not None or (source.out is None and sys.stdout.isatty()):
        return nullcontext()
    return progress_bar(description)


class Chunk(NamedTuple):
    """Some rows, and what the model reads of each."""

    rows: list[Row]
    texts: list[str]


class TextForm(NamedTuple):
    """How a row becomes the text that the model reads."""

    template: str
    """With a slot for each of the columns."""
    columns: list[str]
    """The template's slots."""
    column: str | None
    """The user's name of the one text column."""

    @classmethod
    def of(cls, task: dict[str, Any] | None, source: SourceConfig) -> "TextForm":
        """The form of the bridge's task where its columns are known, else the text as it is.

        They are not known for one text, or one column, of a task whose text has several.
        """
        template = str(task["text"]) if task else "{text}"
        columns = sorted(slots(template))
        if columns != ["text"] and (source.text is not None or source.column):
            return cls("{text}", ["text"], source.column)
        return cls(template, columns, source.column)

    @property
    def expected_column(self) -> str | None:
        """A column that the file must have; None is text, which plain text has too."""
        if self.column is None and self.columns != ["text"]:
            return self.columns[0]
        return self.column

    def text(self, numbered: NumberedRow) -> str:
        """The text of a row.

        Raises:
            PalamError: a column that it does not have, or that holds no text.
        """
        hint = "" if self.column else "; name one with --column"
        fields = {}
        for name in self.columns:
            column = self.column or name
            fields[name] = text_of(numbered.row, column, numbered.place, hint=hint)
        return self.template.format(**fields)


def read_chunks(
    source: SourceConfig, task: dict[str, Any] | None, output: RowWriter
) -> Iterator[Chunk]:
    """The rows that are left to do, some at a time.

    Args:
        source: the texts.
        task: the bridge's, which says how a row becomes a text.
        output: what is done already.

    Raises:
        PalamError: an empty file, a row that cannot be read, or an output of another file.
    """
    form = TextForm.of(task, source)
    if source.text is not None:
        yield Chunk([{"text": source.text}], [form.template.format(text=source.text)])
        return
    file = str(source.file)
    rows = numbered_rows(file, column=form.expected_column)
    if output.num_done:
        _skip_done(rows, output, file)
    is_empty = output.num_done == 0
    while chunk := list(islice(rows, CHUNK_SIZE)):
        is_empty = False
        texts = [form.text(numbered) for numbered in chunk]
        yield Chunk([numbered.row for numbered in chunk], texts)
    if is_empty:
        name = "standard input" if file == STANDARD_INPUT else file
        raise PalamError(f"{name} is empty")


def _skip_done(rows: Iterator[NumberedRow], output: RowWriter, file: str) -> None:
    """Pass over the rows that are done; the last of them must be the output's last."""
    last_done = next(islice(rows, output.num_done - 1, output.num_done), None)
    last_row = output.last_row or {}
    results = {name: last_row[name] for name in RESULT_COLUMNS if name in last_row}
    if last_done is None or {**last_done.row, **results} != last_row:
        raise PalamError(
            f"what <out>.partial holds is not of the rows of {file}; delete it to start anew"
        )


def check_columns_free(rows: Sequence[Row], added: Sequence[str]) -> None:
    """Refuse rows of the user's that have a column which the command adds.

    Raises:
        PalamError: the first such column.
    """
    for row in rows:
        taken = colliding_columns(row, added)
        if taken:
            raise PalamError(
                f'the input has a column "{taken[0]}", which is needed for the results; rename it'
            )
