"""One run to a place: a lock beside an output, held for as long as the run goes."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from palam.errors import PalamError
from palam.utils.files import output_place


def lock_path(output: Path) -> Path:
    """The lock file of an output; it lies beside it, hidden."""
    return output.with_name(f".{output.name}.lock")


@contextlib.contextmanager
def output_lock(output: str | os.PathLike[str]) -> Iterator[None]:
    """Hold an output place within the block; nobody else who asks for it gets it.

    The lock is the system's own: it goes when the process goes, however it ends. The file that it
    is on names the process, for those who are refused, and is removed at the end.

    Args:
        output: a file or folder, there or not.

    Raises:
        PalamError: another process writes there; the message names it.
    """
    path = lock_path(output_place(output))
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise PalamError(
            f"{output} is being written by another run ({_holder(path)}); "
            "wait for it, or give another place"
        ) from None
    except OSError as error:
        raise PalamError(f"{output} cannot be written: {error.strerror or error}") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"
