"""Files and folders that appear whole or not at all: written aside, synced, renamed."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from palam.errors import PalamError


class Marker(NamedTuple):
    """What a folder must hold to be replaced.

    Attributes:
        file: the name of a file in it.
        text: a text in that file; empty accepts any content.
    """

    file: str
    text: str = ""


def fsync_path(path: Path) -> None:
    """Write one file, or one folder's list of files, from the system's memory to the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows has no descriptor for a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Sync every file and folder below this folder, then the folder itself."""
    for path in folder.rglob("*"):
        fsync_path(path)
    fsync_path(folder)


def check_replaceable(folder: str | os.PathLike[str], marker: str | tuple[str, str]) -> None:
    """Refuse to replace a folder that holds somebody's data.

    Args:
        folder: may be missing or empty, or hold the marker.
        marker: the name of a file that only a folder of ours holds; or a [`Marker`], such a file
            and a text in it.

    Raises:
        PalamError: it is a file, or holds other files.
    """
    path = Path(folder)
    if not path.exists():
        return
    if not path.is_dir():
        raise PalamError(f"{folder} is a file; give a folder that is new or empty")
    is_empty = not any(path.iterdir())
    if not is_empty and not _holds(path, marker):
        raise PalamError(f"{folder} holds other files; give a folder that is new or empty")


def _holds(folder: Path, marker: str | tuple[str, str]) -> bool:
    """Whether a folder holds a marker."""
    marker = Marker(marker) if isinstance(marker, str) else Marker(*marker)
    path = folder / marker.file
    if not path.is_file():
        return False
    return marker.text in path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def atomic_directory(
    folder: str | os.PathLike[str], *, marker: str | tuple[str, str]
) -> Iterator[Path]:
    """Write a folder's new contents aside; at the end of the block they take its place at once.

    Args:
        folder: the folder to create or replace.
        marker: what a folder must hold to be replaced, see [`check_replaceable`].

    Yields:
        The temporary folder to write into, on the same disk. If the block raises, it is removed
        and nothing has changed.

    Raises:
        PalamError: `folder` is a file, holds something else, or cannot be made where it is.
    """
    check_replaceable(folder, marker)
    target = Path(folder).resolve()
    aside = _make_folder_beside(target)
    replaced = aside.with_name(f"{aside.name}-old")
    try:
        yield aside
        _apply_umask(aside)
        fsync_tree(aside)
        if target.exists():
            target.rename(replaced)
        aside.rename(target)
        fsync_path(target.parent)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _make_folder_beside(target: Path) -> Path:
    """A new hidden folder in the same place as `target`."""
    aside = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    except OSError as error:
        raise PalamError(f"cannot write to {target.parent}: {error.strerror}") from None
    return aside


def _apply_umask(folder: Path) -> None:
    """Give every file the usual mode: some writers' files are private, a checkpoint is shared."""
    mask = os.umask(0)  # it can be read only by setting it
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file aside; at the end of the block it takes its place at once.

    Yields:
        The temporary file, open for bytes.

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
