"""Where results go: tables, files, and rows as JSON lines."""

import contextlib
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console, RenderableType
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.tasks.writers import json_line
from palam.utils.files import atomic_file, output_place
from palam.utils.texts import printable


class RowWriter(NamedTuple):
    """An output of rows."""

    write: Callable[[Row], None]
    """Writes one row."""


def print_table(renderable: RenderableType) -> None:
    """Print to standard output: as wide as the terminal, or in a file as wide as it needs.

    What a terminal would obey is written out: names may be from anyone's checkpoint.
    """
    terminal = Console()
    if terminal.is_terminal:
        terminal.print(_printable(terminal, renderable, terminal.width), end="")
        return
    # Not printed directly: when a pipe is closed, rich ends the program with its own exit code.
    text = io.StringIO()
    page = Console(file=text, width=10_000)
    page.print(_printable(page, renderable, page.measure(renderable).maximum), end="")
    for line in text.getvalue().removesuffix("\n").split("\n"):
        print_text(f"{line.rstrip()}\n")


def _printable(console: Console, renderable: RenderableType, width: int) -> Segments:
    """What rich renders, without anything in the texts that a terminal would obey."""
    segments = []
    for segment in console.render(renderable, console.options.update_width(width)):
        lines = segment.text.split("\n")
        segments.append(segment._replace(text="\n".join(map(printable, lines))))
    return Segments(segments)


def print_values(values: Mapping[str, Any]) -> None:
    """Print names and values as a table, a line each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in values.items():
        table.add_row(name, Text(str(value)))
    print_table(table)


def print_text(text: str) -> None:
    """Write to standard output; characters that its encoding lacks as escapes.

    Raises:
        PalamError: it is closed, or cannot be written to.
    """
    stream = _standard_output()
    with _writable_standard_output():
        stream.write(_encodable(text, stream))
        stream.flush()


def _print_bytes(content: bytes) -> None:
    """Write UTF-8 to standard output, whatever its encoding; to one of text alone, as text.

    Raises:
        PalamError: it is closed, or cannot be written to.
    """
    stream = _standard_output()
    buffer = getattr(stream, "buffer", None)
    with _writable_standard_output():
        if buffer is None:  # of a notebook
            stream.write(_encodable(content.decode(), stream))
        else:
            buffer.write(content)
            buffer.flush()


def _encodable(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _standard_output() -> Any:
    if sys.stdout is None or getattr(sys.stdout, "closed", False):
        raise PalamError("standard output is closed; give a file with --out")
    return sys.stdout


@contextlib.contextmanager
def _writable_standard_output() -> Iterator[None]:
    """Say in one line what hinders writing; a pipe that the reader has closed is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_standard_output()
        reason = error.strerror or error
        raise PalamError(f"standard output cannot be written: {reason}") from None


def _discard_standard_output() -> None:
    """Let nothing more be written, or Python tries to write the rest again when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


def check_writable(path: Path) -> None:
    """Refuse a file or folder that could not be written, before any work is done for it.

    Raises:
        PalamError: no name for a file or folder (`/`, `.`, or a folder that the process is in), or
            the first folder above it that exists is none, or cannot be written to.
    """
    place = output_place(path)
    folder = next(parent for parent in place.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PalamError(f"{path} cannot be written: {folder} is no folder that can be written to")


def check_file_writable(path: Path) -> None:
    """Refuse a place where no file could be written, before any work is done for it.

    Raises:
        PalamError: a folder, no name for a file, or a place that cannot be written to.
    """
    check_writable(path)
    if path.is_dir():
        raise PalamError(f"{path} is a folder; give a file to write")


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Refuse, before any work, an output that would replace what is read, or another output.

    Args:
        outputs: files that are to be written; None are not asked for.
        inputs: files that are read; None are not there.

    Raises:
        PalamError: two of them are the same file.
    """
    files = [path for path in outputs if path is not None and not is_device(path)]
    for place, path in enumerate(files):
        for read in inputs:
            if read is not None and _is_same_file(path, read):
                raise PalamError(f"{path} is what is read; give another file to write")
        for other in files[:place]:
            if _is_same_file(path, other):
                raise PalamError(f"two results would be written to {path}; give two files")


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, which need not be there yet."""
    with contextlib.suppress(OSError, ValueError):
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def is_device(path: Path) -> bool:
    """Whether it is a pipe or a device, which is written to directly."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # there is none, or none can be
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears when all of it is written; a pipe or a device is written directly.

    Raises:
        PalamError: a folder, or a place that cannot be written to.
    """
    if not is_device(path):
        check_file_writable(path)
    with atomic_file(path) as file:
        yield file


def write_json(file: IO[bytes], value: Any) -> None:
    """Write one value as indented JSON; what JSON does not know, as text."""
    file.write(json.dumps(value, indent=2, default=str).encode() + b"\n")


@contextlib.contextmanager
def open_rows(path: Path | None) -> Iterator[RowWriter]:
    """Open an output of rows as JSON lines.

    Args:
        path: a file (see [`open_output`]); None is standard output.

    Raises:
        PalamError: a place that cannot be written to.
    """
    if path is None:
        yield RowWriter(lambda row: _print_bytes(json_line(row) + b"\n"))
        return
    with open_output(path) as file:

        def write(row: Row) -> None:
            file.write(json_line(row) + b"\n")
            file.flush()

        yield RowWriter(write)
