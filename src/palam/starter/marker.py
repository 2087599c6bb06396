"""The file that marks a folder as a whole starter model, and says where it comes from."""

import json
from pathlib import Path
from typing import Any

from palam.starter.sources import Source

MARKER = "starter.json"
FORMAT = 1
"""Raised when a conversion changes: folders of an older format are then made anew."""
MAX_BYTES = 2**20
"""So much of a marker is read."""


def write_marker(folder: Path, source: Source) -> None:
    """Mark a folder, whose files are all there, as a starter model."""
    content = {
        "origin": source.hub_id,
        "licence": source.licence,
        "format": FORMAT,
        "files": _sizes(folder),
    }
    text = json.dumps(content, indent=2)
    (folder / MARKER).write_text(f"{text}\n", encoding="utf-8")


def is_complete(folder: Path) -> bool:
    """Whether a folder is a whole starter model of today's format; reads no weights."""
    marker = _read_marker(folder)
    sizes = marker.get("files")
    if marker.get("format") != FORMAT or not isinstance(sizes, dict):
        return False
    return sizes.items() <= _sizes(folder).items()


def origin(path: str | Path) -> str | None:
    """The hub id of the model that a starter folder was converted from; None for other folders."""
    hub_id = _read_marker(Path(path)).get("origin")
    return str(hub_id) if hub_id else None


def _read_marker(folder: Path) -> dict[str, Any]:
    """The marker's content; empty for a folder without one."""
    try:
        with (folder / MARKER).open("rb") as file:
            return dict(json.loads(file.read(MAX_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _sizes(folder: Path) -> dict[str, int]:
    """The sizes of a folder's files by name, the marker left out."""
    return {
        path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != MARKER
    }
