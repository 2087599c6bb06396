"""Where results go: tables, files, and rows as JSON lines."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from palam.errors import PalamError
from palam.utils.files import atomic_file

Row = dict[str, Any]


class RowWriter(NamedTuple):
    """An output of rows, and what of it was there already."""

    write: Callable[[Row], None]
    """Writes one row."""
    num_done: int = 0
    """Rows that an earlier run wrote."""
    last_row: Row | None = None
    """The last of these."""


def print_table(renderable: RenderableType) -> None:
    """Print to standard output: as wide as the terminal, or in a file as wide as it needs."""
    terminal = Console()
    if terminal.is_terminal:
        terminal.print(renderable)
        return
    # Not printed directly: when a pipe is closed, rich ends the program with its own exit code.
    text = io.StringIO()
    page = Console(file=text, width=10_000)
    page.print(renderable, width=page.measure(renderable).maximum)
    for line in text.getvalue().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")


def print_values(values: Mapping[str, Any]) -> None:
    """Print names and values as a table, a line each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in values.items():
        table.add_row(name, Text(str(value)))
    print_table(table)


def check_writable(path: Path) -> None:
    """Refuse a file or folder that could not be written, before any work is done for it.

    Raises:
        PalamError: the first folder above it that exists is none, or cannot be written to.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PalamError(f"{path} cannot be written: {folder} is no folder that can be written to")


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears when all of it is written; a pipe or a device is written directly.

    Raises:
        PalamError: a folder, or a place that cannot be written to.
    """
    if path.is_dir():
        raise PalamError(f"{path} is a folder; give a file to write")
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    check_writable(path)
    with atomic_file(path) as file:
        yield file


def write_json(file: IO[bytes], value: Any) -> None:
    """Write one value as indented JSON; what JSON does not know, as text."""
    file.write(json.dumps(value, indent=2, default=str).encode() + b"\n")


@contextlib.contextmanager
def open_rows(path: Path | None, resume: bool = False) -> Iterator[RowWriter]:
    """Open an output of rows as JSON lines.

    Args:
        path: a file (see [`open_output`]); None is standard output.
        resume: write to `<path>.partial`, which becomes the file at the end; if the run is
            interrupted, it stays, and the next run appends to it.

    Raises:
        PalamError: a place that cannot be written to.
    """
    if path is None:
        yield RowWriter(_line_writer(sys.stdout.buffer))
    elif resume:
        with _open_partial(path) as writer:
            yield writer
    else:
        with open_output(path) as file:
            yield RowWriter(_line_writer(file))


@contextlib.contextmanager
def _open_partial(path: Path) -> Iterator[RowWriter]:
    partial = path.with_name(f"{path.name}.partial")
    for place in (path, partial):
        check_writable(place)
        if place.exists() and not place.is_file():
            raise PalamError(f"{place} is no file; --resume needs one")
    with partial.open("ab+") as file:
        try:
            yield _writer_after_whole_lines(file)
            os.fsync(file.fileno())
        except BaseException:
            if file.tell() == 0:
                partial.unlink()
            raise
    partial.replace(path)


def _writer_after_whole_lines(file: IO[bytes]) -> RowWriter:
    """Count the rows that are there, and cut off a line that was being written."""
    num_rows = 0
    last_line = b"null"
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(file.tell() - len(line))
            break
        num_rows += 1
        last_line = line
    return RowWriter(_line_writer(file), num_rows, json.loads(last_line))


def _line_writer(file: IO[bytes]) -> Callable[[Row], None]:
    def write(row: Row) -> None:
        try:
            line = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # an unpaired surrogate in the input: escaped, it survives
            line = json.dumps(row).encode()
        file.write(line + b"\n")
        file.flush()

    return write
