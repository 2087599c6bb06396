"""Docstrings as this package writes them: Markdown's code marks, and cross references as [`Name`].

[`Name`] is a class, function or constant of the package, wherever it is defined; [`Class.method`]
and [`module.Name`] are the longer forms, and within a class a method's name is enough. A reference
that leads nowhere, or to several things, is a warning.
"""

import ast
import re
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import palam

PACKAGE = Path(palam.__file__).parent
MARK = re.compile(
    r"""
    \[`(?P<reference>[\w.]+)`\]               # ours
    | :[\w:]+:`[^`]+` | ``(?:.|\n)+?``        # reStructuredText's own: a role, code
    | `(?P<code>(?:[^`\n]|\n(?!\s*\n))+)`     # Markdown's code
    """,
    re.VERBOSE,
)
SPECIAL = re.compile(r"\||(?<=\w)_(?!\w)|\*(?=\*?\w)")
"""What reStructuredText would take for a mark: |…|, a target_ and *emphasis."""
VARIABLES = ("attribute", "data")
"""What autodoc calls variables of a class and of a module."""
logger = logging.getLogger(__name__)


def module_name(path: Path) -> str:
    """A file's dotted name, e.g. `palam.models.modeling`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defined_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names that statements of a module or class define."""
    names: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            names[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names[statement.target.id] = statement
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    names[target.id] = statement
    return names


class Index:
    """Where every name of the package is documented."""

    def __init__(self) -> None:
        self.targets: dict[str, set[str]] = defaultdict(set)
        """By how a name may be written, its documented full names."""
        self.imports: dict[str, dict[str, str]] = defaultdict(dict)
        """By module, the names that it imports from this package, with their full names."""
        for path in sorted(PACKAGE.rglob("*.py")):
            self._add_module(module_name(path), ast.parse(path.read_text(encoding="utf-8")))

    def _add_module(self, module: str, tree: ast.Module) -> None:
        self.targets[module].add(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("palam"):
                for alias in node.names:
                    full_name = f"{node.module}.{alias.name}"
                    self.imports[module][alias.asname or alias.name] = full_name
        for name, statement in defined_names(tree.body).items():
            self._add(module, name)
            if isinstance(statement, ast.ClassDef):
                for member in defined_names(statement.body):
                    self._add(module, f"{name}.{member}")

    def _add(self, module: str, name: str) -> None:
        """A name by itself, and behind each ending of its module's name."""
        public = palam._HOMES.get(name.partition(".")[0]) == module
        target = f"palam.{name}" if public else f"{module}.{name}"
        parts = module.split(".")
        for start in range(len(parts) + 1):
            self.targets[".".join([*parts[start:], name])].add(target)
        if public:
            self.targets[target].add(target)

    def find(self, name: str, holder: str) -> set[str]:
        """The full names that a reference may mean.

        Args:
            name: as it is written.
            holder: full name of what the docstring describes.
        """
        first, dot, rest = name.partition(".")
        parts = holder.split(".")
        if len(parts) > 1 and parts[1] in palam._HOMES:
            parts[:1] = palam._HOMES[parts[1]].split(".")
        for length in range(len(parts), 1, -1):  # its own class and module, then its room
            place = ".".join(parts[:length])
            candidates = [f"{place}.{name}"]
            if first in self.imports[place]:
                candidates.append(f"{self.imports[place][first]}{dot}{rest}")
            for candidate in candidates:
                if candidate in self.targets:
                    return self.targets[candidate]
        targets = self.targets.get(name, set())
        room = ".".join(parts[:2])
        return {target for target in targets if target.startswith(f"{room}.")} or targets


class MarkdownDocstrings:
    """The hook: an autodoc docstring from Markdown's marks to those of reStructuredText."""

    def __init__(self) -> None:
        self.index = Index()

    def __call__(
        self, app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        """Rewrite the lines in place; see the event `autodoc-process-docstring`."""
        if what in VARIABLES:
            lines[0] = f": {lines[0]}"  # napoleon takes what stands before a colon for a type
        elif is_imported(name, obj):
            return  # autodoc asks for its docstring, but does not show it
        converted: list[str] = []
        for block, is_code in code_blocks(lines):
            if is_code:
                converted.extend(block)
            else:
                converted.extend(self._prose("\n".join(block), name).split("\n"))
        lines[:] = converted

    def _prose(self, text: str, holder: str) -> str:
        pieces = []
        end = 0
        for mark in MARK.finditer(text):
            pieces.append(escaped(text[end : mark.start()]))
            if mark["reference"]:
                pieces.append(self._reference(mark["reference"], holder))
            elif mark["code"]:
                pieces.append(f"``{mark['code']}``")
            else:
                pieces.append(mark[0])
            end = mark.end()
        pieces.append(escaped(text[end:]))
        return "".join(pieces)

    def _reference(self, name: str, holder: str) -> str:
        targets = sorted(self.index.find(name, holder))
        if len(targets) != 1:
            meaning = ", ".join(targets) or "nothing"
            logger.warning("docstring of %s: [`%s`] means %s", holder, name, meaning)
            return f"`{name}`"
        module, _, last = name.rpartition(".")
        is_in_module = module in self.index.targets and module.islower()
        return f":py:known:`{last if is_in_module else name} <{targets[0]}>`"


def is_imported(name: str, obj: Any) -> bool:
    """Whether something is documented under the name of a module that only imports it."""
    home = getattr(obj, "__module__", None)
    if not isinstance(home, str) or palam._HOMES.get(name.split(".")[1]) == home:
        return False
    return not name.startswith(f"{home}.")


def code_blocks(lines: list[str]) -> list[tuple[list[str], bool]]:
    """A docstring in blocks of prose and of code: doctests, and Markdown's indented code.

    Indented code follows a line that ends with a colon and an empty line; the colon is doubled, as
    reStructuredText wants it.
    """
    blocks: list[tuple[list[str], bool]] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        code_indent = indent_of(line) + 4
        if line.lstrip().startswith(">>>"):
            end = next((n for n in range(number, len(lines)) if not lines[n].strip()), len(lines))
            blocks.append((lines[number:end], True))
            number = end
            continue
        blocks.append(([line], False))
        number += 1
        following = lines[number : number + 2]
        opens_code = (
            line.rstrip().endswith(":")
            and len(following) == 2
            and not following[0].strip()
            and indent_of(following[1]) >= code_indent
        )
        if opens_code:
            start = number
            while number < len(lines) and (
                not lines[number].strip() or indent_of(lines[number]) >= code_indent
            ):
                number += 1
            blocks[-1] = ([f"{line}:"], False)
            blocks.append((lines[start:number], True))
    return merged(blocks)


def merged(blocks: list[tuple[list[str], bool]]) -> list[tuple[list[str], bool]]:
    """Neighbouring blocks of one kind as one, so that what spans lines is seen whole."""
    return [
        ([line for block, _ in group for line in block], is_code)
        for is_code, group in groupby(blocks, key=lambda block: block[1])
    ]


def escaped(text: str) -> str:
    """Text without what reStructuredText would take for marks."""
    return SPECIAL.sub(r"\\\g<0>", text)


def indent_of(line: str) -> int:
    """Number of spaces at the line's start."""
    return len(line) - len(line.lstrip())


class KnownRole(PyXRefRole):
    """As `py:obj`, but a target that no page documents is a warning."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        """See `XRefRole.process_link`."""
        refnode["reftype"] = "obj"
        refnode["refwarn"] = True
        return super().process_link(env, refnode, has_explicit_title, title, target)


def skip_public(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Leave the public names out of their modules' pages: they stand on the page of `palam`."""
    home = palam._HOMES.get(name)
    documented = app.env.temp_data.get("autodoc:module")
    is_public = home is not None and home == documented and getattr(obj, "__module__", home) == home
    return True if what == "module" and is_public else skip


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hooks, before napoleon's (priority 500)."""
    app.connect("autodoc-process-docstring", MarkdownDocstrings(), priority=400)
    app.connect("autodoc-skip-member", skip_public)
    app.add_role_to_domain("py", "known", KnownRole())
    return {"parallel_read_safe": True}
