"""Where a run is written: by one run at a time, of one process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from palam.errors import PalamError
from palam.utils.files import output_place
from palam.utils.locks import output_lock


@contextlib.contextmanager
def run_place(out: str | Path) -> Iterator[None]:
    """Hold a run's output place within the block; see [`output_lock`].

    Folders above it that are missing are made, and removed again if they are left empty.

    Args:
        out: the checkpoint's folder, there or not.

    Raises:
        PalamError: another run writes there, it is no place for an output, or this process is one
            of several.
    """
    check_single_process()
    missing = [parent for parent in output_place(out).parents if not parent.exists()]
    try:
        with output_lock(out):
            yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):  # it holds something now
                parent.rmdir()


def check_single_process() -> None:
    """Refuse a process that was started as one of several, as `torchrun` does.

    Raises:
        PalamError: `WORLD_SIZE` is above 1.
    """
    processes = os.environ.get("WORLD_SIZE", "").strip()
    if processes.isdecimal() and int(processes) > 1:
        raise PalamError(
            f"WORLD_SIZE is {processes}, but a run is of one process; "
            "start it without torchrun or accelerate"
        )
