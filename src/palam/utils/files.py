"""Folders appear whole or not at all: written aside, synced, renamed."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from palam.errors import PalamError


def fsync_path(path: Path) -> None:
    """Make the system write one file, or one folder's list of files, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no descriptor for a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below this folder, and itself."""
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


def check_replaceable(folder: str | os.PathLike[str], marker: str | tuple[str, str]) -> None:
    """Refuse a folder that holds somebody's data.

    Args:
        folder: may be missing or empty, or hold the marker.
        marker: a file that only a folder of ours holds; or such a file and a text in it.

    Raises:
        PalamError: it is a file, or holds other files.
    """
    path = Path(folder)
    name, text = (marker, "") if isinstance(marker, str) else marker
    if path.exists() and not path.is_dir():
        raise PalamError(f"{folder} is a file; give a folder that is new or empty")
    if path.is_dir() and any(path.iterdir()):
        mark = path / name
        if not mark.is_file() or text not in mark.read_text(encoding="utf-8", errors="replace"):
            raise PalamError(f"{folder} holds other files; give a folder that is new or empty")


@contextlib.contextmanager
def atomic_directory(
    folder: str | os.PathLike[str], *, marker: str | tuple[str, str]
) -> Iterator[Path]:
    """Write a folder's new contents aside; at the end of the block they take its place at once.

    Args:
        folder: the folder to create or replace.
        marker: what a folder must hold to be replaced, see `check_free`.

    Yields:
        The temporary folder to write into. If the block raises, it is removed and nothing has changed.

    Raises:
        PalamError: `folder` is a file, holds something else, or cannot be made where it is.
    """
    check_replaceable(folder, marker)
    target = Path(folder).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        aside.mkdir()
    except OSError as error:
        raise PalamError(f"cannot write to {target.parent}: {error.strerror}") from None
    old = aside.with_name(aside.name + "-old")
    try:
        yield aside
        mask = os.umask(0)  # it can be read only by setting it
        os.umask(mask)
        for path in filter(
            Path.is_file, aside.rglob("*")
        ):  # some writers' files are private; a checkpoint is shared
            path.chmod(0o666 & ~mask)
        fsync_tree(aside)
        if target.exists():
            target.rename(old)
        aside.rename(target)
        fsync_path(target.parent)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file aside; at the end of the block it takes its place at once.

    Raises:
        PalamError: it cannot be written. After any error nothing has changed.
    """
    target = Path(path).absolute()
    aside = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as error:
        raise PalamError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
