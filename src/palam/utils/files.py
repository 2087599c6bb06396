"""Files and folders that appear whole or not at all: written aside, synced, renamed."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from palam.errors import PalamError
from palam.utils.asides import aside_of, remove, replaced_by, tidy

Place = str | os.PathLike[str]
"""Where something is written."""
MAX_MARKER_BYTES = 2**20
"""So much of a marker's file is read."""


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


def output_place(path: Place) -> Path:
    """The absolute path of an output, behind links.

    Raises:
        PalamError: no name for a file or folder: nothing, `/`, `.` or a folder that the current one
            is in; or one that the system refuses.
    """
    try:
        place = Path(path).resolve()
        current = Path.cwd()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in a name; a circle of links
        reason = getattr(error, "strerror", None) or error
        raise PalamError(f"{os.fspath(path)!r} cannot be written: {reason}") from None
    if not place.name or place == current or place in current.parents:
        raise PalamError(
            f"{os.fspath(path)!r} cannot be written; give the name of a new file or folder"
        )
    return place


def check_replaceable(folder: Place, marker: str | tuple[str, str]) -> None:
    """Refuse to replace a folder that holds somebody's data.

    What killed runs have left there is put right first, see [`tidy`].

    Args:
        folder: may be missing or empty, or hold the marker.
        marker: the name of a file that only a folder of ours holds; or a [`Marker`], such a file
            and a text in it.

    Raises:
        PalamError: it is a file, holds other files, or is no place for an output.
    """
    place = output_place(folder)
    tidy(place.parent)
    if not place.exists():
        return
    if not place.is_dir():
        raise PalamError(f"{folder} is a file; give a folder that is new or empty")
    try:
        is_ours = not any(place.iterdir()) or _holds(place, marker)
    except OSError as error:
        raise PalamError(f"{folder} cannot be read: {error.strerror or error}") from None
    if not is_ours:
        raise PalamError(f"{folder} holds other files; give a folder that is new or empty")
    for path in place.rglob("*"):
        if path.exists() and not path.is_file() and not path.is_dir():  # reading it may never end
            raise PalamError(f"{path} is neither a file nor a folder; remove it")


def _holds(folder: Path, marker: str | tuple[str, str]) -> bool:
    """Whether a folder holds a marker."""
    marker = Marker(marker) if isinstance(marker, str) else Marker(*marker)
    path = folder / marker.file
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return marker.text.encode() in file.read(MAX_MARKER_BYTES)


@contextlib.contextmanager
def atomic_directory(folder: Place, *, marker: str | tuple[str, str]) -> Iterator[Path]:
    """Write a folder's new contents aside; at the end of the block they take its place at once.

    A run that is killed meanwhile leaves the old contents or the new ones, but at the moment of the
    change, when neither is in its place: [`tidy`], of the next run there, puts the old ones back.

    Args:
        folder: the folder to create or replace.
        marker: what a folder must hold to be replaced, see [`check_replaceable`].

    Yields:
        The temporary folder to write into, on the same disk. If the block raises, it is removed
        and nothing has changed.

    Raises:
        PalamError: `folder` is a file, holds something else, or cannot be made where it is; or the
            disk is full.
    """
    check_replaceable(folder, marker)
    target = output_place(folder)
    with aside_of(target) as aside:
        _make_folder(aside)
        replaced = replaced_by(aside)
        try:
            yield aside
            _apply_umask(aside)
            fsync_tree(aside)
            if target.exists():
                target.rename(replaced)
            aside.rename(target)
            fsync_path(target.parent)
        except BaseException as error:
            if replaced.exists() and not target.exists():
                replaced.rename(target)
            remove(aside)
            if is_disk_full(error):
                raise PalamError(
                    f"{folder} cannot be written: no space left on its disk"
                ) from error
            raise
        remove(replaced)


def _make_folder(aside: Path) -> None:
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    except OSError as error:
        raise PalamError(f"cannot write to {aside.parent}: {error.strerror}") from None


def _apply_umask(folder: Path) -> None:
    """Give every file the usual mode: some writers' files are private, a checkpoint is shared."""
    mask = os.umask(0)  # it can be read only by setting it
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~mask)


def remove_directory(folder: Place) -> None:
    """Remove a folder, if there is one, so that no half of it is ever in its place.

    It is renamed first; what a killed run leaves of it, the next one removes, see [`tidy`].

    Raises:
        PalamError: it cannot be moved.
    """
    target = output_place(folder)
    with aside_of(target) as aside:
        try:
            target.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise PalamError(f"{folder} cannot be removed: {error.strerror or error}") from None
        remove(aside)


@contextlib.contextmanager
def atomic_file(path: Place) -> Iterator[IO[bytes]]:
    """Write a file aside; at the end of the block it takes its place at once.

    A pipe or a device is written to directly.

    Yields:
        The temporary file, open for bytes.

    Raises:
        PalamError: it cannot be written. After any error nothing has changed.
    """
    in_block = False
    try:
        with _open_aside(path) as file:
            in_block = True
            yield file
            in_block = False
    except OSError as error:
        of_another_file = error.filename is not None or isinstance(error, BrokenPipeError)
        if in_block and of_another_file:
            raise
        raise PalamError(f"{path} cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def _open_aside(path: Place) -> Iterator[IO[bytes]]:
    """The open temporary file, which takes its place if the block does not raise."""
    target = output_place(path)
    if target.is_dir():
        raise PalamError(f"{path} is a folder; give a file to write")
    if Path(path).exists() and not Path(path).is_file():  # not `target`: /dev/stdout has none
        with Path(path).open("wb") as device:
            yield device
        return
    tidy(target.parent)
    with aside_of(target) as aside:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            remove(aside)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, which some libraries do in their own ways."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    message = str(error)
    return "No space left" in message or "file write failed" in message  # safetensors, torch
