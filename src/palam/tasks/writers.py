"""Rows as a file: JSON lines or an array, CSV, tab-separated values, a workbook, Parquet.

All of them are streamed. What a format cannot hold is written as nearly as it can be, and told.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from palam.errors import PalamError
from palam.tasks.cells import cell_text, plain_value
from palam.tasks.decoding import BYTE_ORDER_MARK
from palam.tasks.formats import FOREIGN_TABLES, Row
from palam.tasks.losses import Losses
from palam.tasks.parquet_writer import write_parquet
from palam.tasks.tables import DELIMITERS
from palam.tasks.workbook_writer import write_workbook

OUTPUT_FORMATS = {
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
}
"""The formats by the ending of a file's name; any other is JSON lines."""
FLAT_FORMATS = ("csv", "tsv", "xlsx", "parquet")
"""Formats whose values are texts, numbers, booleans or empty."""
PLAIN_HEADER = re.compile(f'[^{"".join(DELIMITERS)}"\r\n{BYTE_ORDER_MARK}]+')
"""A column's name by which a header cannot be parted in a wrong way."""
NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that a text file cannot hold: NUL, and surrogates that are not paired."""


def output_format(path: str | Path) -> str:
    """The format that an output has by its name's ending: JSON lines where that says nothing.

    Raises:
        PalamError: the ending of a spreadsheet's format that is not written.
    """
    ending = Path(path).suffix.lower()
    if ending in FOREIGN_TABLES or ending == ".xlsm":
        raise PalamError(f"cannot write {path} as {ending}; let its name end in .xlsx or .csv")
    return OUTPUT_FORMATS.get(ending, "jsonl")


def check_format(file_format: str, columns: Sequence[str]) -> None:
    """Refuse a format in which rows cannot be written, before any work is done for them.

    Args:
        file_format: see [`write_rows`].
        columns: of the rows, as far as they are known.

    Raises:
        PalamError: a package that is missing, or more columns than the format holds.
    """
    write_rows([], columns, io.BytesIO(), file_format)


def write_rows(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], file_format: str
) -> None:
    """Write rows as a table or as JSON, a row at a time.

    In the flat formats a missing value is an empty cell, a list or an object is its JSON text. What
    a format cannot hold (NUL in CSV; in a workbook control characters, and all of a text after
    32,767 characters) is replaced or cut, which is told once at the end, with the number of values.

    Args:
        rows: each with values by column.
        columns: in their order; JSON needs none.
        file: is open for bytes; a workbook's must be seekable.
        file_format: one of `jsonl`, `json` and [`FLAT_FORMATS`].

    Raises:
        PalamError: a row with a column that is none of `columns`, more rows or columns than a
            workbook holds, or a package that is missing.
        OSError: the file cannot be written.
    """
    if file_format in FLAT_FORMATS:
        rows = _checked_rows(rows, columns)
    losses = Losses()
    WRITERS[file_format](rows, columns, file, losses)
    losses.tell(f".{file_format}")


def _checked_rows(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Row]:
    """The rows, all of whose columns are known."""
    known = set(columns)
    for number, row in enumerate(rows, 1):
        for name in row:
            if name not in known:
                raise PalamError(
                    f'row {number} has a column "{name}" that the rows before it did not have; '
                    "write them as .jsonl"
                )
        yield row


def json_line(row: Row) -> bytes:
    """A row as one line of JSON, without its end; NaN is null."""
    plain = plain_value(row)
    try:
        return json.dumps(plain, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # an unpaired surrogate: escaped, it survives
        return json.dumps(plain).encode()


def _write_json_lines(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    for row in rows:
        file.write(json_line(row) + b"\n")


def _write_json_array(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    file.write(b"[")
    separator = b"\n"
    for row in rows:
        file.write(separator + json_line(row))
        separator = b",\n"
    file.write(b"\n]\n")


def _write_csv(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    """RFC 4180, in UTF-8 with a byte order mark, without which Excel reads another encoding.

    The header is quoted where its names hold signs that may be taken for the delimiter.
    """
    are_plain = all(PLAIN_HEADER.fullmatch(name) for name in columns)
    _write_delimited(rows, columns, file, losses, delimiter=",", quote_header=not are_plain)


def _write_tsv(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    """The same with tabs; its quoted header says that quotation marks quote, see [`parse_tsv`]."""
    _write_delimited(rows, columns, file, losses, delimiter="\t", quote_header=True)


def _write_delimited(
    rows: Iterable[Row],
    columns: Sequence[str],
    file: IO[bytes],
    losses: Losses,
    *,
    delimiter: str,
    quote_header: bool,
) -> None:
    file.write(codecs.BOM_UTF8)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    minimal = csv.writer(text, delimiter=delimiter)
    quoted = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    try:
        header = quoted if quote_header else minimal
        header.writerow([losses.replaced(NO_TEXT, name) for name in columns])
        for row in rows:
            cells = [losses.replaced(NO_TEXT, cell_text(row.get(name))) for name in columns]
            # A byte order mark in front of a line is not read as one of the text.
            has_mark = bool(cells) and cells[0].startswith(BYTE_ORDER_MARK)
            writer = quoted if has_mark else minimal
            writer.writerow(cells)
    finally:
        text.detach()


WRITERS: dict[str, Callable[[Iterable[Row], Sequence[str], IO[bytes], Losses], None]] = {
    "jsonl": _write_json_lines,
    "json": _write_json_array,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "xlsx": write_workbook,
    "parquet": write_parquet,
}
