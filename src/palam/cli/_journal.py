"""The journal of a run: its finished rows in `<out>.partial`, until the output is whole.

Its first line says of which run they are. Each further line is a row as it comes out, in order; a
line that was being written when the run was stopped is dropped. When the last row is done, a line
says so; then the output is written, and the journal removed.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from palam.errors import PalamError
from palam.scale.identity import Identity, identity_change
from palam.tasks.formats import Row
from palam.tasks.writers import json_line

VERSION = 1
BEGINNING = b'{"palam_journal": '
"""Of the first line of every journal; no other file is taken for one, or removed."""
KEEP_ERRORS = "--keep-errors"
"""Of a run's identity: whether rows that cannot be read are kept."""
END = b'{"palam_journal_end": true}\n'


class JournalState(NamedTuple):
    """What a journal holds.

    Attributes:
        identity: of its run; None if there is no journal.
        num_rows: finished rows.
        is_complete: whether they are all.
        length: of its whole lines, in bytes.
    """

    identity: Identity | None = None
    num_rows: int = 0
    is_complete: bool = False
    length: int = 0


def journal_path(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.partial")


def journal_state(path: Path) -> JournalState:
    """What a journal holds, if there is one; its rows are not looked at.

    Raises:
        PalamError: a file that is no journal, or one of another version.
    """
    if not path.exists() and not path.is_symlink():
        return JournalState()
    if not path.is_file():
        raise PalamError(f"{path} is no file, which the rows that are done need")
    try:
        with path.open("rb") as file:
            return _read_state(file, path)
    except OSError as error:
        raise PalamError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_state(file: IO[bytes], path: Path) -> JournalState:
    first = file.readline()
    if not first.endswith(b"\n") and BEGINNING.startswith(first[: len(BEGINNING)]):
        return JournalState()  # it was stopped at the very beginning
    identity = _read_header(first, path)
    num_rows = 0
    length = len(first)
    for line in file:
        if line == END:
            return JournalState(identity, num_rows, True, length)
        if not line.endswith(b"\n"):
            break
        num_rows += 1
        length += len(line)
    return JournalState(identity, num_rows, False, length)


def _read_header(line: bytes, path: Path) -> Identity:
    if not line.startswith(BEGINNING):
        raise PalamError(f"{path} is no unfinished run of Palam; move it away or delete it")
    try:
        header = json.loads(line)
        version = header["palam_journal"]
        identity = header["run"]
    except (ValueError, LookupError, RecursionError):
        identity = None
    if not isinstance(identity, dict):
        raise PalamError(f"{path} is damaged in line 1; delete it to begin anew")
    if version != VERSION:
        raise PalamError(
            f"{path} is an unfinished run of another version of Palam; delete it to begin anew"
        )
    return identity


class Journal:
    """An open journal.

    Args:
        path: where it is.
        file: it, open for reading and for bytes to be appended.
        state: what it holds.

    Attributes:
        num_rows: finished rows.
    """

    def __init__(self, path: Path, file: IO[bytes], state: JournalState) -> None:
        self.path = path
        self.num_rows = state.num_rows
        self._file = file
        self._length = state.length

    def append(self, row: Row) -> None:
        """Add a finished row; it is with the system when this returns.

        Raises:
            PalamError: it cannot be written.
        """
        self._write(json_line(row) + b"\n")
        self.num_rows += 1

    def finish(self) -> None:
        """Say that all rows are there.

        Raises:
            PalamError: it cannot be written.
        """
        self._write(END)

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            reason = error.strerror or error
            raise PalamError(f"{self.path} cannot be written: {reason}") from None
        self._length += len(line)

    def rows(self, results: Sequence[str] = ()) -> Iterator[Row]:
        """The finished rows, from the first.

        Args:
            results: columns that each of them must have.

        Raises:
            PalamError: a line that is no such row.
        """
        with self.path.open("rb") as file:
            file.readline()
            for number in range(self.num_rows):
                try:
                    row = json.loads(file.readline())
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict) or not set(results) <= row.keys():
                    raise PalamError(
                        f"{self.path} is damaged in line {number + 2}; delete it to begin anew"
                    )
                yield row

    def keep(self, num_rows: int) -> None:
        """Drop the rows after so many."""
        with self.path.open("rb") as file:
            file.readline()
            for _ in range(num_rows):
                file.readline()
            self._length = file.tell()
        self._file.truncate(self._length)
        self.num_rows = num_rows

    def close(self) -> None:
        """Close the file; rows that could not be written have been told of."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def open_journal(path: Path, identity: Identity, *, resume: bool) -> Iterator[Journal]:
    """Open a run's journal, without a half line at its end.

    At the end of the block it stays if there are rows in it.

    Args:
        path: where it is.
        identity: of the run.
        resume: whether to go on with what there is; else it is emptied.

    Raises:
        PalamError: it cannot be written, or is that of another run; the message says in what.
    """
    state = journal_state(path) if resume else JournalState()
    if state.identity is not None:
        check_identity(state.identity, identity, path)
    try:
        file = path.open("ab")
        file.truncate(state.length)
    except OSError as error:
        raise PalamError(f"{path} cannot be written: {error.strerror or error}") from None
    journal = Journal(path, file, state)
    try:
        if state.identity is None:
            header = {"palam_journal": VERSION, "run": identity}
            journal._write(json.dumps(header).encode() + b"\n")
        yield journal
    finally:
        journal.close()
        if not journal.num_rows:
            path.unlink(missing_ok=True)


def check_identity(earlier: Identity, now: Identity, path: Path) -> None:
    """Refuse to go on with a run as another one.

    Raises:
        PalamError: they differ; the message names all in what, the first with its values.
    """
    if not earlier.get(KEEP_ERRORS):
        # A run that such a text has stopped may go on past it: what is done stays as it is.
        now = {**now, KEEP_ERRORS: earlier.get(KEEP_ERRORS)}
    change = identity_change(earlier, now)
    if change is None:
        return
    raise PalamError(
        f"{path} is of another run: {change}; give the same command with --resume, "
        "or --overwrite in its place to begin anew"
    )
