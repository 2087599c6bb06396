"""Where a run is written: by one run at a time, and by the first of its processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from palam.utils.asides import aside_of, remove
from palam.utils.files import output_place
from palam.utils.locks import output_lock
from palam.utils.processes import is_main, on_main


@contextlib.contextmanager
def run_place(out: str | Path) -> Iterator[None]:
    """Hold a run's output place within the block; see [`output_lock`].

    Of several processes the first holds it. Folders above it that are missing are made, and removed
    again if they are left empty.

    Args:
        out: the checkpoint's folder, there or not.

    Raises:
        PalamError: another run writes there, or it is no place for an output.
    """
    with contextlib.ExitStack() as held:
        on_main(lambda: held.enter_context(_held_place(out)))
        yield


@contextlib.contextmanager
def _held_place(out: str | Path) -> Iterator[None]:
    missing = [parent for parent in output_place(out).parents if not parent.exists()]
    try:
        with output_lock(out):
            yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):  # it holds something now
                parent.rmdir()


@contextlib.contextmanager
def folder_for_rows(out: str | Path) -> Iterator[Path]:
    """A hidden path beside a run's output, for a folder that is needed until the run's end.

    All processes get the same. What is there is removed at the end; what a killed run leaves, by
    the next one.

    Args:
        out: the checkpoint's folder, there or not.
    """
    with contextlib.ExitStack() as used:
        path = on_main(lambda: used.enter_context(aside_of(output_place(out))))
        try:
            yield path
        finally:
            if is_main():
                remove(path)
