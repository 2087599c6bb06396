"""Digests, by which damaged files and other data than before are recognised."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHECKSUM_FILE = "checksums.json"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def values_sha256(values: Iterable[Any]) -> str:
    """The SHA-256 of values that JSON can hold, in their order."""
    digest = hashlib.sha256()
    for value in values:
        line = json.dumps(value, sort_keys=True) + "\n"
        digest.update(line.encode())
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors: their names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_checksums(folder: Path) -> None:
    """Write `checksums.json`: size and SHA-256 of every file that a folder holds, by its name."""
    checksums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            checksums[name] = _checksum(path)
    content = json.dumps(checksums, indent=2) + "\n"
    (folder / CHECKSUM_FILE).write_text(content, encoding="utf-8")


def is_whole(folder: Path) -> bool:
    """Whether every file of which [`write_checksums`] wrote is there and as it was."""
    try:
        checksums = json.loads((folder / CHECKSUM_FILE).read_bytes())
        return bool(checksums) and all(
            _checksum(folder / name) == checksum for name, checksum in checksums.items()
        )
    except (OSError, ValueError, AttributeError):  # a file is missing; no JSON; no mapping
        return False


def _checksum(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_sha256(path)}
