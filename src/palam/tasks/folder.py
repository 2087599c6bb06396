"""Where a task's files are: a data folder, this package, or a copy of the hub's repository."""

import os
from pathlib import Path

from palam.errors import PalamError
from palam.tasks.task import Task

DataDir = str | Path | None
"""A data folder: in it, one folder a task. None is the environment's PALAM_DATA."""

SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev"}
"""Palam's names of splits by other names."""
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
"""What the names of a task's files end in."""
EXCEL_LOCK = "~$"
"""What the name of the file begins with that Excel has beside a workbook while it is open."""


def find_folder(task: Task, data_dir: DataDir = None) -> Path | None:
    """The local folder of a task's files, or None if the hub has them.

    A data folder must have the task; where it is the environment's and the package has the task's
    data, it need not.

    Raises:
        PalamError: the data folder has no such task; or there is no data folder, and the task is
            not on the hub.
    """
    root = data_dir or data_root()
    name = task.data_of or task.name
    if root:
        folder = Path(root) / name
        if folder.is_dir():
            return folder
    if task.packaged and not data_dir:
        return packaged_folder(task.packaged)
    if root:
        origin = "" if data_dir else " (PALAM_DATA)"
        raise PalamError(f'no folder "{name}" in the data folder {root}{origin}')
    if task.hub is None:
        raise PalamError(f"{task.name} is not on the hub: give --data DIR or set PALAM_DATA")
    return None


def data_root() -> str | None:
    """The environment's data folder, if there is one."""
    return os.environ.get("PALAM_DATA") or None


def packaged_folder(packaged: str) -> Path:
    """The folder of a task's data in this package."""
    return Path(__file__).parent / packaged


def split_files(folder: Path | None) -> dict[tuple[str, str], Path]:
    """The files `<split>.<language>.jsonl` (or another of [`ENDINGS`]), in the names' order.

    Returns:
        Paths by split and language; none for a folder that is missing.

    Raises:
        PalamError: two files of the same split and language.
    """
    if folder is None or not folder.is_dir():
        return {}
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        parts = path.name.split(".")
        is_lock = path.name.startswith(EXCEL_LOCK)
        if len(parts) == 3 and path.suffix.lower() in ENDINGS and not is_lock:
            split, language, _ = parts
            key = SPLIT_NAMES.get(split, split), language
            if key in files:
                raise PalamError(f"{folder} holds {files[key].name} and {path.name}: take one out")
            files[key] = path
    return files


def is_hub_copy(folder: Path) -> bool:
    """Whether a folder is a copy of a repository on the hub.

    That has Parquet files, none of which is named as [`split_files`] are.
    """
    return not split_files(folder) and any(folder.rglob("*.parquet"))
