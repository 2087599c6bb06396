"""The tasks that Palam knows by name: `registry.yaml`. Adding one is adding one entry there."""

from pathlib import Path
from typing import Any

import yaml

from palam.errors import PalamError
from palam.tasks.task import Hub, Task
from palam.utils.languages import languages


def _read() -> dict[str, Task]:
    entries: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    )
    tasks = {}
    for name, entry in entries.items():
        entries[name] = entry = (
            entries.get(entry.pop("like", ""), {}) | entry
        )  # before those that are like it
        made: dict[str, Any] = {
            "name": name,
            **entry,
            "hub": Hub(**entry["hub"]) if entry.get("hub") else None,
        }
        if isinstance(made["labels"], list):
            made["labels"] = {label: label for label in made["labels"]}
        if made.get("packaged"):
            files = (Path(__file__).parents[1] / made["packaged"]).glob("*.*.jsonl")
            made["languages"] = sorted({path.name.split(".")[1] for path in files})
        elif made["languages"] == "all":
            made["languages"] = [language.code for language in languages()]
        made |= {key: tuple(made[key]) for key in ("fields", "languages") if key in made}
        tasks[name] = Task(**made)
    return tasks


TASKS: dict[str, Task] = _read()


def get_task(name: str) -> Task:
    """The registered task of this name; PalamError, listing the names, if there is none."""
    if name not in TASKS:
        raise PalamError(f'unknown task "{name}": one of {", ".join(TASKS)}')
    return TASKS[name]
