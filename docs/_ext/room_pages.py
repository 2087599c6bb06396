"""The reference of a room: its page in docs/api lists the modules in their order of reading.

A module that the page does not list follows at the end, so that none is missing.
"""

import pkgutil
import re
from importlib.util import find_spec
from typing import Any

from sphinx.application import Sphinx

FOLDER = "api/"
SECTION = "\n## `{name}`\n\n```{{eval-rst}}\n.. automodule:: palam.{name}\n```\n"


def room_modules(room: str) -> list[str]:
    """The public modules of a room, without their packages: `models.fusion.base`, …"""
    spec = find_spec(f"palam.{room}")
    if spec is None or spec.submodule_search_locations is None:
        return []
    modules = pkgutil.walk_packages(spec.submodule_search_locations, f"palam.{room}.")
    names = [module.name for module in modules if not module.ispkg]
    return [name.removeprefix("palam.") for name in names if "._" not in name]


def add_missing_modules(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the modules that the page of a room does not list."""
    if not docname.startswith(FOLDER):
        return
    listed = re.findall(r"^\.\. automodule:: palam\.([\w.]+)$", source[0], re.MULTILINE)
    for name in room_modules(docname.removeprefix(FOLDER)):
        if name not in listed:
            source[0] += SECTION.format(name=name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("source-read", add_missing_modules)
    return {"parallel_read_safe": True}
