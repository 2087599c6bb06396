"""How many rows a file has, without reading their values."""

from collections.abc import Iterable
from typing import IO
from xml.parsers import expat

from palam.tasks.decoding import BYTE_ORDER_MARK, WIDE_ENCODINGS

MARK = BYTE_ORDER_MARK.encode()


def count_json_lines(lines: Iterable[bytes]) -> int | None:
    """The number of objects, one a line.

    Args:
        lines: of the file.

    Returns:
        None where the lines must be parsed: those of an array, of joined files, in UTF-16, or with
        old line ends.
    """
    count = 0
    for number, line in enumerate(lines):
        if number == 0:
            if line.startswith(tuple(WIDE_ENCODINGS)):
                return None
            line = line.removeprefix(MARK)
        if line.startswith(b"{"):
            has_old_ends = not line.endswith(b"\n") and b"\r" in line
            if has_old_ends or MARK in line:
                return None
            count += 1
        elif line.strip():
            return None
    return count


class SheetCounter:
    """Counts the rows of a workbook's sheet below its header, from the sheet's XML.

    Rows without a value count where one with a value follows.
    """

    def __init__(self) -> None:
        self._row = 0
        self._header_row = 0
        self._last_row = 0
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start_element

    def count(self, xml: IO[bytes]) -> int:
        """The number of rows.

        Raises:
            xml.parsers.expat.ExpatError: this is no XML.
        """
        self._parser.ParseFile(xml)
        return self._last_row - self._header_row

    def _start_element(self, name: str, attributes: dict[str, str]) -> None:
        if ":" in name:
            name = name.rpartition(":")[2]
        if name == "row":
            self._row = int(attributes.get("r", self._row + 1))
        elif name == "is":  # a text that stands in the sheet itself
            self._mark_row()
        in_value = name == "v" and self._last_row < self._row
        self._parser.CharacterDataHandler = self._find_value if in_value else None

    def _find_value(self, text: str) -> None:
        if text.strip():
            self._mark_row()

    def _mark_row(self) -> None:
        """Note that the row has a value."""
        self._last_row = self._row
        if not self._header_row:
            self._header_row = self._row
