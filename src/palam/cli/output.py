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

from palam.errors import PalamError
from palam.files import writing

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
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
    else:
        check_place(path)
        with writing(path) as file:
            yield file


@contextlib.contextmanager
def json_lines(path: Path | None) -> Iterator[Write]:
    """Write rows as JSON lines to a file (see `opened`), or as they come to standard output."""
    if path is None:
        yield lambda row: (sys.stdout.buffer.write(_line(row)), sys.stdout.buffer.flush())
    else:
        with opened(path) as file:
            yield lambda row: file.write(_line(row))


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # an unpaired surrogate in the input: escaped, it survives
        return json.dumps(row).encode() + b"\n"
