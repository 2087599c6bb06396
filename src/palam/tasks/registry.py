"""The tasks that Palam knows by name: `registry.yaml`. Adding one is adding one entry there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from palam.errors import PalamError
from palam.tasks.folder import packaged_folder, split_files
from palam.tasks.task import Hub, Task
from palam.utils.languages import languages

REGISTRY_FILE = Path(__file__).with_suffix(".yaml")


def get_task(name: str) -> Task:
    """The registered task of this name.

    Raises:
        PalamError: there is none; the message lists the names.
    """
    if name not in TASKS:
        raise PalamError(f'unknown task "{name}": one of {", ".join(TASKS)}')
    return TASKS[name]


def register_task(task: Task, *, replace: bool = False) -> None:
    """Make a task known by its name, in this process.

    Its data is then read like every task's: from `<data_dir>/<name>/<split>.<language>.jsonl`, or
    from the hub if the task says where.

    Args:
        task: the task.
        replace: put it in the place of one that has this name.

    Raises:
        PalamError: there is a task of this name, and `replace` is not set.
    """
    if task.name in TASKS and not replace:
        raise PalamError(
            f'there is a task "{task.name}" already; choose another name, or give replace=True'
        )
    TASKS[task.name] = task


def _read_registry() -> dict[str, Task]:
    """The tasks of the registry's file, in its order."""
    entries = yaml.safe_load(REGISTRY_FILE.read_text(encoding="utf-8"))
    complete: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        base = complete.get(entry.pop("like", ""), {})
        complete[name] = {**base, **entry}
    return {name: _task(name, entry) for name, entry in complete.items()}


def _task(name: str, entry: Mapping[str, Any]) -> Task:
    """A task from its entry."""
    options = dict(entry)
    if options.get("hub"):
        options["hub"] = Hub(**options["hub"])
    if isinstance(options["labels"], list):
        options["labels"] = {label: label for label in options["labels"]}
    if "fields" in options:
        options["fields"] = tuple(options["fields"])
    options["languages"] = _language_codes(options)
    return Task(name=name, **options)


def _language_codes(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The languages of an entry: those of its packaged files, all of the table, or a list."""
    packaged = entry.get("packaged")
    if packaged:
        files = split_files(packaged_folder(packaged))
        return tuple(sorted({language for _, language in files}))
    if entry["languages"] == "all":
        return tuple(language.code for language in languages())
    return tuple(entry["languages"])


TASKS: dict[str, Task] = _read_registry()
"""All tasks by name."""
