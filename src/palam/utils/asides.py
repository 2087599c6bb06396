"""What runs write aside: names that tell whose it is, and what is left of runs that were killed.

An output is written beside its place, under a hidden name, and renamed when it is whole. A run that
is killed cannot clean up after itself: the next one that writes to the same folder does, for which
the name tells the machine and the process.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

REPLACED = "-old"
"""Behind the name of what was written, the name of what it takes the place of."""
FOREIGN_LIFETIME = 24 * 3600
"""Seconds after which what a process of another machine has left counts as abandoned."""
RENAMING_TIME = 60
"""Seconds after which that process is no longer between two renames."""
PATTERN = re.compile(
    r"\.(?P<target>.+)-(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{8}"
    rf"(?P<replaced>{REPLACED})?"
)
_in_use: set[str] = set()
"""The names that this process uses now."""


class Aside(NamedTuple):
    """Something in a folder that a run has written aside or moved away.

    Attributes:
        path: where it is.
        target: the place that it was written for.
        is_replaced: it stood there before, and was moved away for what is new.
        machine: on which the run was.
        process: the run's process id.
        start: when the process was started, in the system's units; 0 is not known.
    """

    path: Path
    target: Path
    is_replaced: bool
    machine: str
    process: int
    start: int


@contextlib.contextmanager
def aside_of(target: Path) -> Iterator[Path]:
    """A hidden path beside a place, free to write to; within the block, nobody removes it."""
    process = os.getpid()
    owner = f"{machine_id()}-{process}-{process_start(process) or 0}"
    path = target.with_name(f".{target.name}-{owner}-{secrets.token_hex(4)}")
    _in_use.add(path.name)
    try:
        yield path
    finally:
        _in_use.discard(path.name)


def replaced_by(aside: Path) -> Path:
    """Where what stood at a place goes while what was written aside takes it."""
    return aside.with_name(aside.name + REPLACED)


def tidy(folder: Path) -> None:
    """Put right what killed runs have left in a folder; what live runs are writing stays.

    What was moved away for something new that never came is put back; everything else that was
    written aside is removed. What cannot be, stays.
    """
    leftovers = [aside for aside in _asides(folder) if not _is_in_use(aside)]
    replaced = [aside for aside in leftovers if aside.is_replaced]
    for aside in sorted(replaced, key=_changed, reverse=True):
        if not os.path.lexists(aside.target):
            with contextlib.suppress(OSError):
                aside.path.rename(aside.target)
    for aside in leftovers:
        remove(aside.path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if there is one.

    Links are not followed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _asides(folder: Path) -> list[Aside]:
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []
    asides = []
    for name in names:
        match = PATTERN.fullmatch(name)
        if match:
            aside = Aside(
                path=folder / name,
                target=folder / match["target"],
                is_replaced=match["replaced"] is not None,
                machine=match["machine"],
                process=int(match["process"]),
                start=int(match["start"]),
            )
            asides.append(aside)
    return asides


def _is_in_use(aside: Aside) -> bool:
    """Whether the run that has written it may still need it.

    Of a process that nothing can be known of (of another machine or container), the age decides.
    """
    if aside.machine != machine_id() or os.name == "nt":
        lifetime = RENAMING_TIME if aside.is_replaced else FOREIGN_LIFETIME
        return time.time() - _changed(aside) < lifetime
    if aside.process == os.getpid():
        return aside.path.name.removesuffix(REPLACED) in _in_use
    return is_alive(aside.process, aside.start)


def _changed(aside: Aside) -> float:
    """When it was last written to, or renamed."""
    try:
        status = aside.path.lstat()
    except OSError:  # it is gone meanwhile
        return time.time()
    return max(status.st_mtime, status.st_ctime)


@cache
def machine_id() -> str:
    """The same for all processes that know of each other: of one machine, or one container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def is_alive(process: int, start: int = 0) -> bool:
    """Whether a process of this machine goes on.

    Args:
        process: its id.
        start: when it was started, see [`process_start`]; another process may have got its id. 0 is
            not known.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    now = process_start(process)
    if now is None:
        return False
    return not start or not now or now == start


def process_start(process: int) -> int | None:
    """When a process was started, in ticks since the system was; 0 where that cannot be known.

    Returns:
        None for a process that has ended, of which only its parent has not yet been told.
    """
    try:
        content = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, *fields = content.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
