"""Folders appear whole or not at all: written aside, synced, renamed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from palam.errors import PalamError


def sync(folder: Path) -> None:
    """Flush every file below the folder, and the folder itself, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() and os.name == "nt":  # Windows has no descriptor for a folder
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(folder: str | os.PathLike[str], *, marker: str) -> Iterator[Path]:
    """Write a folder's new contents aside; at the end of the block they take its place at once.

    Args:
        folder: the folder to create or replace.
        marker: a file that a folder must hold to be replaced; a folder without it that is not empty is
            somebody's data.

    Yields:
        The temporary folder to write into. If the block raises, it is removed and nothing has changed.

    Raises:
        PalamError: `folder` is a file, or holds something else.
    """
    target = Path(folder).absolute()
    if target.exists() and not target.is_dir():
        raise PalamError(f"{folder} is a file; give a folder that is new or empty")
    if target.is_dir() and any(target.iterdir()) and not (target / marker).is_file():
        raise PalamError(f"{folder} holds other files; give a folder that is new or empty")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        aside.chmod(0o777 & ~_umask())
        yield aside
        for path in aside.rglob("*"):  # some writers make private files; a checkpoint is to be shared
            if path.is_file():
                path.chmod(0o666 & ~_umask())
        sync(aside)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.rename(old / "was")
            aside.rename(target)
            shutil.rmtree(old)
        else:
            aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
