"""Rows from files, pipes and standard input, streamed, with the line number that an error names.

JSON lines or a JSON array, CSV, tab-separated values or plain text, in UTF-8, or UTF-16 with a byte
order mark; Excel workbooks, Parquet files, and folders that `datasets` saved. Texts are kept as
they stand: joiners, directions, empty strings, unpaired surrogates from JSON escapes. Only what is
no text (other bytes, NUL) is refused; byte order marks are dropped.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from palam.errors import PalamError
from palam.tasks.cells import cell_text
from palam.tasks.counting import count_json_lines
from palam.tasks.decoding import decoded_lines
from palam.tasks.formats import (
    FOREIGN_TABLES,
    FORMATS,
    JSON_BEGINNING,
    LEADING_SPACE,
    Lines,
    NumberedLine,
    Row,
    parse_json,
    parse_plain_text,
    shortened,
)
from palam.tasks.parquet import (
    count_parquet,
    count_saved_dataset,
    is_saved_dataset,
    read_parquet,
    read_saved_dataset,
)
from palam.tasks.tables import DELIMITERS, GUESSED_FROM, parse_csv, parse_tsv, table_columns
from palam.tasks.workbooks import count_workbook, read_workbook
from palam.utils.languages import find_language
from palam.utils.text_template import fill, slots

STANDARD_INPUT = "-"
TEXT = "text"
"""The usual column of texts, that of plain text too."""
FORMAT_NAMES = ("json", "csv", "tsv", "text", "xlsx", "parquet", "dataset")
"""The formats by their names; `json` is JSON lines or an array, `dataset` a folder."""
BINARY_FORMATS = ("xlsx", "parquet", "dataset")
"""Formats that are no lines of text, and are not read from a stream."""
PARSERS: dict[str, Callable[[Lines, str], Iterator[NumberedLine]]] = {
    "json": parse_json,
    "csv": parse_csv,
    "tsv": parse_tsv,
}


class NumberedRow(NamedTuple):
    """A row and where it stands.

    Attributes:
        place: for messages: `"file.csv, line 3"`.
        row: its values by column.
    """

    place: str
    row: Row


class RowSource:
    """A file, a pipe or standard input, whose rows can be read: of a stream, a single time.

    The ending of the file's name gives the format: `.jsonl`, `.ndjson` and `.json` are JSON lines
    or an array of objects, `.csv` is CSV (with commas, semicolons, tabs or bars), `.tsv` and
    `.tab` are tab-separated, `.xlsx` is an Excel workbook, `.parquet` a Parquet file, `.txt` is
    plain text, a text a line, `{"text": line}`, blank lines included. A folder is one by
    `datasets.Dataset.save_to_disk`. Without such an ending, the beginning tells JSON from plain
    text; what looks like a table is refused, for whether its first line is a header cannot be
    known.

    Args:
        path: the file; `-` is standard input.
        file_format: one of [`FORMAT_NAMES`], in place of what the ending says.
        sheet: a workbook's sheet, by its name or its number from 1; default the first that is
            shown, which is told where there are several.

    Attributes:
        name: for messages.
        is_stream: whether it can be read a single time.

    Raises:
        PalamError: an unknown format, or a file that is missing or may not be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        file_format: str | None = None,
        sheet: str | int | None = None,
    ) -> None:
        if file_format is not None and file_format not in FORMAT_NAMES:
            known = ", ".join(FORMAT_NAMES)
            raise PalamError(f"there is no format {file_format!r}: it must be one of: {known}")
        self.path = path
        self.name = "standard input" if str(path) == STANDARD_INPUT else str(path)
        self.is_stream = check_readable(path)
        self._format = file_format or _format_of(Path(path))
        self._has_format = file_format is not None
        self._sheet = sheet
        self._is_opened = False
        self._is_read = False
        if self.is_stream and self._format in BINARY_FORMATS:
            raise PalamError(
                f"{self.name} cannot be read as {self._format}; save what it gives to a file first"
            )
        if sheet is not None and self._format != "xlsx":
            raise PalamError(f"{self.name} has no sheets, which only workbooks (.xlsx) have")

    @property
    def is_plain_text(self) -> bool:
        """Whether the file's name or its given format says that it is plain text."""
        return self._format == "text"

    def rows(self, *, column: str | None = None) -> Iterator[NumberedRow]:
        """The rows with their places; their columns are not checked.

        Args:
            column: a column that the rows must have, which plain text has not.

        Raises:
            PalamError: a file that cannot be read, a line that is not of its format, or a stream
                that was read before.
        """
        if self.is_stream and self._is_read:
            raise PalamError(
                f"{self.name} cannot be read a second time; save what it gives to a file first"
            )
        self._is_read = True
        return self._rows(column)

    def count(self) -> int | None:
        """The number of rows that the file has; of a stream, None.

        That of Parquet and of a saved data set is known, lines of JSON and rows of a workbook are
        counted without their values, and what remains is read through.

        Raises:
            PalamError: as `rows` does, of what is read.
        """
        if self.is_stream:
            return None
        path = Path(self.path)
        if self._format == "parquet":
            return count_parquet(path)
        if self._format == "dataset":
            return count_saved_dataset(path)
        if self._format == "xlsx":
            return count_workbook(path, self._sheet, tell_sheet=self._is_first_look())
        if self._format == "json":
            with path.open("rb") as lines:
                num_lines = count_json_lines(lines)
            if num_lines is not None:
                return num_lines
        return sum(1 for _ in self._rows(None))

    def _rows(self, column: str | None) -> Iterator[NumberedRow]:
        try:
            if self._format in BINARY_FORMATS:
                for number, row in self._read_table():
                    yield NumberedRow(f"{self.name}, row {number}", row)
                return
            with _open(self.path) as file:
                lines = Lines(decoded_lines(file, self.name))
                for line, row in self._parse(lines, column):
                    yield NumberedRow(f"{self.name}, line {line}", row)
        except OSError as error:
            raise PalamError(f"cannot read {self.name}: {error.strerror or error}") from None

    def _read_table(self) -> Iterator[NumberedLine]:
        """The rows of a file that is no text."""
        path = Path(self.path)
        if self._format == "parquet":
            return read_parquet(path)
        if self._format == "dataset":
            return read_saved_dataset(path)
        return read_workbook(path, self._sheet, tell_sheet=self._is_first_look())

    def _is_first_look(self) -> bool:
        """Whether the workbook was not opened before; its sheet is told once."""
        is_first = not self._is_opened
        self._is_opened = True
        return is_first

    def _parse(self, lines: Lines, column: str | None) -> Iterator[NumberedLine]:
        """The rows that the lines hold; without a format, their beginning tells it."""
        file_format = self._format or self._guess_format(lines, column or "text")
        if file_format != "text":
            return PARSERS[file_format](lines, self.name)
        if not self._has_format:
            self._refuse_tabs(lines)
        if column is not None:
            raise PalamError(f'{self.name}, line 1: no column "{column}": plain text has none')
        return parse_plain_text(lines)

    def _guess_format(self, lines: Lines, column: str) -> str:
        for count in (1, GUESSED_FROM):  # where one line tells it, no more are waited for
            beginning = "".join(lines.peek(count)).lstrip(LEADING_SPACE)
            if JSON_BEGINNING.match(beginning):
                return "json"
        columns = table_columns(lines, column, delimiters=DELIMITERS)
        if columns:
            raise PalamError(
                f"{self.name} looks like a table (columns {shortened(columns)}); "
                "give a file whose name ends in .csv or .tsv (.txt for plain text)"
            )
        return "text"

    def _refuse_tabs(self, lines: Lines) -> None:
        """Refuse what is called plain text, but is Excel's "Unicode text": cells between tabs."""
        columns = table_columns(lines, "text", delimiters=["\t"])
        if len(columns) > 1:
            raise PalamError(
                f"{self.name} looks like a table (columns {shortened(columns)}); "
                "let its name end in .tsv"
            )


def check_readable(path: str | Path) -> bool:
    """Refuse a file that cannot be read, without opening what can be read only once.

    Args:
        path: the file; `-` is standard input.

    Returns:
        Whether it is a stream: a pipe, a device or standard input.

    Raises:
        PalamError: it is missing, may not be read, or is a folder that `datasets` did not save.
    """
    if str(path) == STANDARD_INPUT:
        return True
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode):
            Path(path).open("rb").close()
            return False
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, PermissionError) and _format_of(Path(path)) == "xlsx":
            reason = f"{reason}; close it in other programs"
        raise PalamError(f"cannot read {path}: {reason}") from None
    if not os.access(path, os.R_OK):
        raise PalamError(f"cannot read {path}: Permission denied")
    if stat.S_ISDIR(mode):
        if is_saved_dataset(Path(path)):
            return False
        raise PalamError(f"cannot read {path}: Is a directory, and none that datasets saved")
    return True


def read_texts(
    path: str | Path | RowSource, *, column: str = TEXT, option: str | None = None
) -> Iterator[str]:
    """Stream the texts of a file, stripped, without empty ones.

    Args:
        path: the file, see [`RowSource`]; `-` is standard input.
        column: the column of the texts, or a template over several; of a file that is called plain
            text, its lines are the texts.
        option: by which a user names a column, for the message where there is none; None where
            there is no such option.

    Raises:
        PalamError: a file that cannot be read, or a row that is wrong; names the line.
    """
    source = path if isinstance(path, RowSource) else RowSource(path)
    template = f"{{{TEXT}}}"
    columns = {TEXT: TEXT if source.is_plain_text else column}
    if "{" in column and not source.is_plain_text:
        template = column
        columns = {slot: slot for slot in sorted(slots(template))}
    needed = [name for name in columns.values() if name != TEXT]
    hint = "" if option is None else f"; name one with {option}"
    for place, row in source.rows(column=needed[0] if needed else None):
        fields = {}
        for slot, name in columns.items():
            fields[slot] = text_of(row, name, place, hint=hint)
        text = fill(template, fields).strip()
        if text:
            yield text


def numbered_rows(
    path: str | Path | RowSource, *, column: str | None = None
) -> Iterator[NumberedRow]:
    """Stream the rows of a file with their places.

    Args:
        path: the file; `-` is standard input.
        column: a column that the rows must have, which plain text has not.

    Yields:
        The rows with their places; their columns are not checked.

    Raises:
        PalamError: a file that cannot be read, or a line that is not of its format.
    """
    source = path if isinstance(path, RowSource) else RowSource(path)
    yield from source.rows(column=column)


def text_of(row: Row, column: str, place: str, *, hint: str = "") -> str:
    """The row's text in a column, unchanged.

    A number or a truth value is the text that its cell shows (`3`), a missing value is empty, as an
    empty cell of CSV is.

    Args:
        row: a row.
        column: the column's name.
        place: where the row stands, for messages.
        hint: what a user can do about a missing column, for its message.

    Raises:
        PalamError: the row has no such column, or no text in it.
    """
    if column not in row:
        raise PalamError(f'{place}: no column "{column}" among {shortened(row)}{hint}')
    value = row[column]
    if isinstance(value, list | dict):
        raise PalamError(f'{place}: column "{column}" holds {str(value)[:40]}, not a text')
    return cell_text(value)


def language_of(row: Row, column: str, place: str) -> str:
    """The language code in a column of the row, without space around it.

    Args:
        row: a row.
        column: the column's name.
        place: where the row stands, for messages.

    Raises:
        PalamError: the row has no such column, or no known language in it.
    """
    code = text_of(row, column, place).strip()
    if find_language(code) is None:
        raise PalamError(
            f'{place}: column "{column}" holds {code[:40]!r}, which is no language; '
            "it must be a code such as si or sin_Sinh"
        )
    return code


def _format_of(path: Path) -> str | None:
    """The format that the file's name tells, or that it is a folder.

    Raises:
        PalamError: that of a spreadsheet's file which is not read.
    """
    ending = path.suffix.lower()
    if ending in FOREIGN_TABLES:
        raise PalamError(f"{path} is {FOREIGN_TABLES[ending]}; save it as .xlsx or .csv")
    return "dataset" if path.is_dir() else FORMATS.get(ending)


def _open(path: str | Path) -> AbstractContextManager[Iterable[bytes]]:
    """The file, or standard input, which is left open."""
    if str(path) == STANDARD_INPUT:
        return nullcontext(_standard_input())
    return Path(path).open("rb")


def _standard_input() -> Iterable[bytes]:
    """Standard input's bytes; of one that has only text, as in a notebook, its lines in UTF-8."""
    if sys.stdin is None:
        raise PalamError("cannot read standard input: it is closed")
    stream: IO[bytes] | None = getattr(sys.stdin, "buffer", None)
    if stream is not None:
        return stream
    return (line.encode("utf-8", "surrogatepass") for line in sys.stdin)
