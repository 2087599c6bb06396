"""The public surface: what `from palam import ...` gives, and every signature of it.

`python tests/test_public_api.py` renews public_api.txt. A line that changes there changes what
users have written: it belongs in CHANGELOG.md.
"""

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, Unpack, get_args, get_origin

import palam

SNAPSHOT = Path(__file__).with_name("public_api.txt")
PROMISED = {
    "PalamModel",
    "PalamConfig",
    "PalamBridge",
    "PalamProcessor",
    "Template",
    "PalamError",
    "score_labels",
    "generate",
    "evaluate",
    "align",
    "train",
    "TrainConfig",
    "ModelConfig",
    "DataConfig",
    "OptimConfig",
    "RuntimeConfig",
    "Fusion",
    "register_fusion",
    "Task",
    "register_task",
}
WIDTH = 100
LEANING = re.compile(r"(Also|Of both|Both|The first one's)\b")
"""How a summary begins that says something only beside another one."""


def plain(text: Any) -> str:
    """An annotation or parameter without the modules in which its types happen to be defined, and
    without the addresses of its functions."""
    named = re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(text))
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", named)


def described(name: str, function: Any) -> str:
    """A signature in one line, or a parameter a line."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # an exception without a constructor of its own
        return name
    parameters = [plain(part) for part in parameter_list(signature, foreign_fields(function))]
    result = signature.return_annotation
    arrow = ""
    if result not in (None, signature.empty):
        arrow = f" -> {plain(inspect.formatannotation(result))}"
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {part}" for part in parameters), f"){arrow}"])


def foreign_fields(item: Any) -> set[str]:
    """The fields of a dataclass that it has from another library's class."""
    if not dataclasses.is_dataclass(item) or not inspect.isclass(item):
        return set()
    own: set[str] = set()
    for base in palam_bases(item):
        own.update(inspect.get_annotations(base))
    return {field.name for field in dataclasses.fields(item)} - own


def parameter_list(signature: inspect.Signature, hidden: set[str]) -> Iterator[str]:
    """The parameters, and the star before those that are given by name."""
    has_star = False
    for parameter in signature.parameters.values():
        if parameter.name in hidden:
            continue
        has_star = has_star or parameter.kind == parameter.VAR_POSITIONAL
        if parameter.kind == parameter.KEYWORD_ONLY and not has_star:
            has_star = True
            yield "*"
        if get_origin(parameter.annotation) is Unpack:  # keywords, with types, that it passes on
            if not has_star:
                yield "*"
            for name, annotation in get_args(parameter.annotation)[0].__annotations__.items():
                yield f"{name}: {inspect.formatannotation(annotation)} = ..."
        else:
            yield str(parameter)


def palam_bases(owner: type) -> list[type]:
    """A class and those of its base classes that are this package's, the deepest first."""
    return [base for base in reversed(owner.__mro__) if base.__module__.startswith("palam.")]


def members(owner: type) -> Iterator[str]:
    """A class's public methods and properties, those of this package's base classes too."""
    names: dict[str, Any] = {}
    for base in palam_bases(owner):
        names.update(vars(base))
    for name, member in sorted(names.items()):
        if name.startswith("_"):
            continue
        full_name = f"{owner.__name__}.{name}"
        if isinstance(member, property):
            yield full_name
        elif isinstance(member, FunctionType | classmethod | staticmethod):
            yield described(full_name, getattr(owner, name))


def surface() -> str:
    """All public names with their signatures: those of `palam.__all__`, then those of an extra."""
    lines = []
    for name in [*palam.__all__, *sorted(set(palam._HOMES) - set(palam.__all__))]:
        item = getattr(palam, name)
        lines.append(described(name, item))
        if inspect.isclass(item):
            lines.extend(members(item))
    return "\n".join(lines) + "\n"


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    return done.stdout


def test_the_public_names_are_there_and_no_others_are_promised():
    assert set(palam.__all__) >= PROMISED
    assert set(palam.__all__) <= set(dir(palam))
    assert all(hasattr(palam, name) for name in palam.__all__)


def test_the_signatures_are_those_of_the_snapshot():
    assert surface() == SNAPSHOT.read_text(encoding="utf-8"), (
        "run `python tests/test_public_api.py`, and say in CHANGELOG.md what changed"
    )


def summaries() -> Iterator[tuple[str, str]]:
    """The public names and their members, each with the first line of what is said of it."""
    for name in palam._HOMES:
        item = getattr(palam, name)
        documented = {name: item}
        if inspect.isclass(item):
            for base in palam_bases(item):
                for member_name, member in vars(base).items():
                    if not member_name.startswith("_"):
                        documented[f"{name}.{member_name}"] = member
        for full_name, documented_item in documented.items():
            text = inspect.getdoc(documented_item) or ""
            yield full_name, text.partition("\n")[0]


def test_a_summary_can_be_read_alone():
    unclear = [name for name, summary in summaries() if LEANING.match(summary)]
    assert unclear == []


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(palam, "no_such_name")


def test_importing_palam_is_quick_and_loads_no_torch():
    seconds, heavy = run_python(
        "import sys, time\n"
        "start = time.process_time()\n"
        "import palam\n"
        "print(time.process_time() - start)\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))\n"
    ).splitlines()
    assert float(seconds) < 0.5
    assert heavy == "[]"


def test_settings_and_tasks_load_no_torch():
    heavy = run_python(
        "import sys\n"
        "from palam import PalamError, Task, Template, TrainConfig\n"
        "from palam import register_fusion, register_task\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    assert heavy.strip() == "[]"


def test_the_version_is_the_projects():
    project = Path(__file__).parents[1] / "pyproject.toml"
    assert f'version = "{palam.__version__}"' in project.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    SNAPSHOT.write_text(surface(), encoding="utf-8")
