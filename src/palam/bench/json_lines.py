"""Files of JSON lines that a killed run may have left half-written."""

import json
from pathlib import Path
from typing import Any

from palam.errors import PalamError


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line; the rest of one that was cut off remains a line of its own."""
    with path.open("a+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        last_byte = file.read(1)
        if last_byte not in (b"", b"\n"):
            file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The file's rows, without a line that was cut off; none if there is no file.

    Raises:
        PalamError: a line of JSON that is no mapping, or a file that cannot be read; the caller
            names the file.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise PalamError(f"it cannot be read: {error.strerror or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict):
            raise PalamError(f"line {number} is no row of names and values")
        rows.append(row)
    return rows
