"""The rows that lines of text hold: JSON lines, a JSON array, plain text; how a format is told."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.tasks.decoding import BYTE_ORDER_MARK

Row = dict[str, Any]
"""A row's values by column."""

FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "text",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".parquet": "parquet",
}
"""The formats by the ending of a file's name."""
FOREIGN_TABLES = {
    ".xls": "an old Excel workbook",
    ".xlsb": "a binary Excel workbook",
    ".ods": "an OpenDocument spreadsheet",
    ".numbers": "a Numbers spreadsheet",
}
"""Spreadsheets that are neither read nor written, by the ending of their names."""
MAX_ARRAY = 2**28
"""Most characters of a JSON array, which is held in memory."""
LEADING_SPACE = f"{BYTE_ORDER_MARK} \t\r\n"
SPACE = re.compile(f"[{LEADING_SPACE}]*")
DECODER = json.JSONDecoder()
JSON_BEGINNING = re.compile(r"\{|\[\s*(?:[\[{\]]|$)")
"""An object; or an array that is one of objects, or goes on in the next line."""


class NumberedLine(NamedTuple):
    """A row and the line that it ends in, from 1."""

    line: int
    row: Row


class Lines(Iterator[str]):
    """Lines of which the next ones can be looked at first.

    Attributes:
        number: of the line that was taken last, from 1; 0 before.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._ahead: list[str] = []
        self.number = 0

    def __next__(self) -> str:
        line = self._ahead.pop(0) if self._ahead else next(self._lines)
        self.number += 1
        return line

    def peek(self, count: int = 1) -> list[str]:
        """The next lines, which stay; fewer at the end."""
        missing = count - len(self._ahead)
        self._ahead.extend(islice(self._lines, max(0, missing)))
        return self._ahead[:count]

    def skip_blank(self) -> None:
        """Take the blank lines that come next."""
        while (following := self.peek()) and not following[0].strip(LEADING_SPACE):
            next(self)


def shortened(items: Iterable[Any], most: int = 8) -> str:
    """The items as a list in words, cut after `most`; `none` if there are none."""
    names = [str(item) for item in items]
    listed = ", ".join(names[:most])
    if len(names) > most:
        listed += f", … ({len(names)} in all)"
    return listed or "none"


def column_letter(number: int) -> str:
    """How a spreadsheet calls a column.

    >>> column_letter(0), column_letter(27)
    ('A', 'AB')
    """
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def parse_plain_text(lines: Lines) -> Iterator[NumberedLine]:
    """A text a line, blank ones included, as `{"text": line}`."""
    for line in lines:
        text = line.lstrip(BYTE_ORDER_MARK).rstrip("\r\n")
        yield NumberedLine(lines.number, {"text": text})


def parse_json(lines: Lines, source: str) -> Iterator[NumberedLine]:
    """An object a line, blank lines left out; or an array of objects over any number of lines."""
    lines.skip_blank()
    following = lines.peek()
    if following and following[0].lstrip(LEADING_SPACE).startswith("["):
        yield from _parse_array(lines, source)
        return
    for line in lines:
        if not line.strip().strip(LEADING_SPACE):
            continue
        place = f"{source}, line {lines.number}"
        for value in _values_of(line.strip(LEADING_SPACE), place):
            yield NumberedLine(lines.number, _checked_object(value, place))


def _values_of(text: str, place: str) -> list[Any]:
    """The value of a line; several where files were joined, each with a byte order mark."""
    try:
        if BYTE_ORDER_MARK not in text:
            return [json.loads(text)]
        return list(_joined_values(text))
    except (ValueError, RecursionError) as error:  # RecursionError: brackets without end
        raise PalamError(f"{place}: not JSON: {error}") from None


def _joined_values(text: str) -> Iterator[Any]:
    position = 0
    while position < len(text):
        value, end = DECODER.raw_decode(text, position)
        yield value
        position = _after_space(text, end)
        if position < len(text) and BYTE_ORDER_MARK not in text[end:position]:
            raise json.JSONDecodeError("Extra data", text, position)


def _after_space(text: str, position: int) -> int:
    """Where the white space and the byte order marks that begin here end."""
    match = SPACE.match(text, position)
    return match.end() if match else position


def _checked_object(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise PalamError(f'{place}: not a JSON object such as {{"text": "…"}}')
    return value


def _parse_array(lines: Lines, source: str) -> Iterator[NumberedLine]:
    """The objects of an array, or of several where files were joined."""
    text = _bounded_text(lines, source)
    line = 1
    counted = 0
    for value, end in _elements(text, source):
        line += text.count("\n", counted, end)
        counted = end
        yield NumberedLine(line, _checked_object(value, f"{source}, line {line}"))


def _bounded_text(lines: Lines, source: str) -> str:
    """All lines as one text, the line feeds of those that were taken before it."""
    parts = ["\n" * lines.number]
    length = 0
    for line in lines:
        length += len(line)
        if length > MAX_ARRAY:
            raise PalamError(f"{source} is a JSON array of over 256 MB; save it as JSON lines")
        parts.append(line)
    return "".join(parts)


class Element(NamedTuple):
    """An array's element, and where it ends in the text."""

    value: Any
    end: int


def _elements(text: str, source: str) -> Iterator[Element]:
    """The elements of the arrays that a text consists of."""
    position = _after_space(text, 0)
    try:
        while position < len(text):
            position = _expect(text, position, "[")
            while text[position : position + 1] != "]":
                value, end = DECODER.raw_decode(text, position)
                yield Element(value, end)
                position = _after_space(text, end)
                if text[position : position + 1] != "]":
                    position = _expect(text, position, ",")
            position = _after_space(text, position + 1)
    except RecursionError as error:
        line = text.count("\n", 0, position) + 1
        raise PalamError(f"{source}, line {line}: not JSON: {error}") from None
    except json.JSONDecodeError as error:
        raise PalamError(f"{source}, line {error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits
        line = text.count("\n", 0, position) + 1
        raise PalamError(f"{source}, line {line}: not JSON: {error}") from None


def _expect(text: str, position: int, sign: str) -> int:
    """Where what follows a sign and white space begins."""
    if not text.startswith(sign, position):
        raise json.JSONDecodeError(f"Expecting '{sign}'", text, position)
    return _after_space(text, position + 1)
