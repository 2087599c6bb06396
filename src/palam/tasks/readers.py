"""Rows from files, pipes and standard input, streamed, with the line number that an error names.

JSON lines or a JSON array, CSV, tab-separated values or plain text; UTF-8, or UTF-16 with a byte
order mark. Texts are kept as they stand: joiners, directions, empty strings, unpaired surrogates
from JSON escapes. Only what is no text (other bytes, NUL) is refused; byte order marks are dropped.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from palam.errors import PalamError
from palam.tasks.decoding import decoded_lines
from palam.tasks.formats import (
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
from palam.tasks.tables import DELIMITERS, parse_csv, parse_tsv, table_columns
from palam.utils.languages import find_language

STANDARD_INPUT = "-"
FORMAT_NAMES = ("json", "csv", "tsv", "text")
"""The formats by their names; `json` is JSON lines or an array."""


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
    `.tab` are tab-separated, `.txt` is plain text, a text a line, `{"text": line}`, blank lines
    included. Without such an ending, the beginning tells JSON from plain text; what looks like a
    table is refused, for whether its first line is a header cannot be known.

    Args:
        path: the file; `-` is standard input.
        file_format: one of [`FORMAT_NAMES`], in place of what the ending says.

    Raises:
        PalamError: an unknown format, or a file that is missing or may not be read.
    """

    def __init__(self, path: str | Path, *, file_format: str | None = None) -> None:
        if file_format is not None and file_format not in FORMAT_NAMES:
            known = ", ".join(FORMAT_NAMES)
            raise PalamError(f"there is no format {file_format!r}: it must be one of: {known}")
        self.path = path
        self.name = "standard input" if str(path) == STANDARD_INPUT else str(path)
        self.is_stream = check_readable(path)
        self._format = file_format or FORMATS.get(Path(path).suffix.lower())
        self._has_format = file_format is not None
        self._is_read = False

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

    def _rows(self, column: str | None) -> Iterator[NumberedRow]:
        try:
            with _open(self.path) as file:
                lines = Lines(decoded_lines(file, self.name))
                for line, row in self._parse(lines, column):
                    yield NumberedRow(f"{self.name}, line {line}", row)
        except OSError as error:
            raise PalamError(f"cannot read {self.name}: {error.strerror or error}") from None

    def _parse(self, lines: Lines, column: str | None) -> Iterator[NumberedLine]:
        """The rows that the lines hold; without a format, their beginning tells it."""
        file_format = self._format or self._guess_format(lines, column or "text")
        if file_format != "text":
            parsers = {"json": parse_json, "csv": parse_csv, "tsv": parse_tsv}
            return parsers[file_format](lines, self.name)
        if column is not None:
            raise PalamError(f'{self.name}, line 1: no column "{column}": plain text has none')
        if not self._has_format:
            self._refuse_tabs(lines)
        return parse_plain_text(lines)

    def _guess_format(self, lines: Lines, column: str) -> str:
        beginning = "".join(lines.peek()).strip(LEADING_SPACE)
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
