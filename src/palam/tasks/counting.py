"""How many rows a file of JSON lines has, without reading their values."""

from collections.abc import Iterable

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
