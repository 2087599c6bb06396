"""Where results go: tables, and rows as JSON lines."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from palam.errors import PalamError
from palam.utils.files import atomic_file

Write = Callable[[dict[str, Any]], Any]


def show(renderable: RenderableType) -> None:
    """Print a table to standard output: as wide as the terminal allows, or, into a file or a pipe, as it needs."""
    if Console().is_terminal:
        Console().print(renderable)
        return
    # Not printed directly: when a pipe is closed, rich ends the program with an exit code of its own.
    text = io.StringIO()
    page = Console(file=text, width=10_000)
    page.print(renderable, width=page.measure(renderable).maximum)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def show_facts(facts: dict[str, Any]) -> None:
    """Print names and values as a table, a line each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    show(table)


def check_place(path: Path) -> None:
    """Refuse a file or folder that could not be written where it is, before any work is done for it."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PalamError(f"{path} cannot be written: {there} is no folder that can be written to")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears when all of it is written; a pipe or a device is written to directly."""
    if path.is_dir():
        raise PalamError(f"{path} is a folder; give a file to write")
    special = path.exists() and not path.is_file()
    if not special:
        check_place(path)
    with path.open("wb") if special else atomic_file(path) as file:
        yield file


@contextlib.contextmanager
def json_lines(
    path: Path | None, resume: bool = False
) -> Iterator[tuple[Write, int, dict[str, Any]]]:
    """Write rows as JSON lines to a file (see `opened`), or as they come to standard output.

    With `resume` they go into `<path>.partial`, which becomes the file at the end, and else stays to be gone on with.

    Yields:
        What writes a row, how many rows were there already, and the last of them.
    """
    if path is None or not resume:
        with contextlib.nullcontext(sys.stdout.buffer) if path is None else opened(path) as out:
            yield _writer(out), 0, {}
        return
    partial = path.with_name(f"{path.name}.partial")
    for one in (path, partial):
        check_place(one)
        if one.exists() and not one.is_file():
            raise PalamError(f"{one} is no file; --resume needs one")
    rows, last = 0, b"{}"
    with partial.open("ab+") as file:
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):  # the run was stopped while it was written
                file.truncate(file.tell() - len(line))
                break
            rows, last = rows + 1, line
        try:
            yield _writer(file), rows, json.loads(last)
            os.fsync(file.fileno())
        except BaseException:
            if not file.tell():
                partial.unlink()
            raise
    partial.replace(path)


def _writer(file: IO[bytes]) -> Write:
    def write(row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # an unpaired surrogate in the input: escaped, it survives
            line = json.dumps(row).encode()
        file.write(line + b"\n")
        file.flush()

    return write
