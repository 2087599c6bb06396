"""Rows from JSON lines, CSV or plain text, streamed, with the line number that an error names.

Texts are kept as they stand: joiners, directions, empty strings, unpaired surrogates from JSON escapes. Only
what is not UTF-8 text (other bytes, NUL) is refused; a byte order mark is dropped.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from palam.errors import PalamError

Row = dict[str, Any]
_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".txt": "text"}


def read_rows(path: str | Path, *, column: str | None = None) -> Iterator[Row]:
    """Stream the rows of a file, or of standard input (`-`); each has `column` (default "text") as a string.

    The file's ending gives the format. Without one, a first line that begins with `{` means JSON lines, one
    with `column` among its comma-separated names means CSV; all else is plain text, a text a line,
    `{"text": line}`, blank lines included.

    Raises:
        PalamError: a file that cannot be read, or a row that is wrong; names the line.
    """
    for where, row in numbered_rows(path, column=column):
        text_of(row, column or "text", where, hint="" if column else "; name one with --column")
        yield row


def read_texts(path: str | Path) -> Iterator[str]:
    """Stream the texts of a file, stripped, without empty ones; see `read_rows`."""
    return filter(None, (row["text"].strip() for row in read_rows(path)))


def numbered_rows(path: str | Path, *, column: str | None = None) -> Iterator[tuple[str, Row]]:
    """Stream `("file, line 3", row)` pairs; see `read_rows`."""
    source = "standard input" if str(path) == "-" else str(path)
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else Path(path).open("rb") as file:
            yield from _parse(
                _decode(file, source), source, _FORMATS.get(Path(path).suffix.lower()), column
            )
    except OSError as error:
        raise PalamError(f"cannot read {source}: {error.strerror or error}") from None


def text_of(row: Row, column: str, where: str, *, hint: str = "") -> str:
    """The row's text in this column, unchanged."""
    if column not in row:
        raise PalamError(f'{where}: no column "{column}" among {shortened(row)}{hint}')
    if not isinstance(row[column], str):
        raise PalamError(f'{where}: column "{column}" holds {str(row[column])[:40]}, not a text')
    return str(row[column])


def shortened(items: Iterable[Any], most: int = 8) -> str:
    """The items as a list in words, cut after `most`."""
    names = [str(item) for item in items]
    return (
        ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
        or "none"
    )


def _decode(lines: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if b"\0" in line:
            raise PalamError(f"{source}, line {number}: holds a NUL byte; save it as UTF-8 text")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise PalamError(
                f"{source}, line {number}: not UTF-8 (byte {error.start + 1})"
            ) from None


def _parse(
    lines: Iterator[str], source: str, kind: str | None, column: str | None
) -> Iterator[tuple[str, Row]]:
    first = next(lines, "")
    lines = chain([first] if first else [], lines)
    if kind is None:
        names = [name.strip().strip('"') for name in first.split(",")]
        kind = (
            "jsonl"
            if first.lstrip().startswith("{")
            else "csv"
            if (column or "text") in names
            else "text"
        )
    if kind == "text" and column is not None:
        raise PalamError(f'{source}, line 1: no column "{column}": plain text has none')
    if kind == "csv":
        yield from _csv(lines, source)
        return
    for number, line in enumerate(lines, 1):
        where = f"{source}, line {number}"
        if kind == "text":
            yield where, {"text": line.rstrip("\r\n")}
        elif line.strip():
            yield where, _json(line, where)


def _json(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets without end
        raise PalamError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise PalamError(f'{where}: not a JSON object such as {{"text": "…"}}')
    return row


def _csv(lines: Iterator[str], source: str) -> Iterator[tuple[str, Row]]:
    reader = csv.reader(lines, strict=True)
    rows = ((f"{source}, line {reader.line_num}", cells) for cells in reader if cells)
    try:
        where, header = next(rows, ("", []))
        if len(set(header)) < len(header):
            raise PalamError(f"{where}: the header names a column twice: {shortened(header)}")
        for where, cells in rows:
            if len(cells) != len(header):
                raise PalamError(
                    f"{where}: {len(cells)} columns where the header has {len(header)}"
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise PalamError(f"{source}, line {reader.line_num}: not CSV: {error}") from None
