"""The storeys: a file imports from its own folder or from below, and no import goes round."""

import ast
from pathlib import Path

import pytest

import palam

ROOT = Path(palam.__file__).parent
STOREYS = [
    {"errors"},
    {"utils"},
    {"starter"},
    {"models"},
    {"tasks"},
    {"inference"},
    {"alignment"},
    {"training"},
    {"bench", "quickstart", "serving", "scale", "integrations"},  # do not know each other
    {"cli"},
]
HEIGHT = {room: height for height, rooms in enumerate(STOREYS) for room in rooms}
FREE = {"__init__", "__main__"}  # the package's own front: it names what the rooms hold
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imported(path):
    """The modules of this package that a file imports: inside functions and for types too."""
    package = (
        module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    )
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names] + [base]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name.startswith("palam"):
                found.add(name)
    # `from a.b import c` names a.b too; where c is a module, that one alone is meant.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_file_stands_in_a_storey():
    assert {room(module) for module in MODULES} - FREE <= set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_its_own_room_or_from_below(path):
    own = room(module_name(path))
    if own in FREE:
        return
    wrong = [
        name
        for name in imported(path)
        if room(name) != own and (room(name) in FREE or HEIGHT[room(name)] >= HEIGHT[own])
    ]
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_import_goes_round():
    graph = {module_name(path): imported(path) - {module_name(path)} for path in FILES}
    graph.pop("palam")
    done, walked = set(), []

    def walk(module):
        if module in walked:
            pytest.fail(" → ".join([*walked[walked.index(module) :], module]))
        if module in done or module not in graph:
            return
        walked.append(module)
        for name in sorted(graph[module]):
            walk(name)
        walked.pop()
        done.add(module)

    for module in sorted(graph):
        walk(module)
