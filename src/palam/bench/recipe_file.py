"""Reading a recipe from its file, with what it extends and with changes from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palam.bench.recipe import Recipe, check_mappings
from palam.bench.results import RECIPE_FIELDS
from palam.errors import PalamError
from palam.training.config import TRAIN_SETTINGS
from palam.utils.settings import parse_yaml, read_settings
from palam.utils.texts import MAX_SHOWN

PACKAGED_RECIPES = Path(__file__).parent / "recipes"


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe file, or one that the package has, with changes.

    Args:
        name: a path, or a name in the package's `recipes` folder: `starter/sib200`. A recipe may
            name another that it `extends` (a file beside it, or a name like this one): the fields
            that it leaves out are the other's, and so are the methods that it does not name.
        changes: `setting=value` in YAML: a setting of training, a field of the recipe, or one of
            `read.…`. `methods=last,mean` leaves out the other methods.

    Raises:
        PalamError: no such recipe or setting.
    """
    content = _read_content(name, ())
    check_mappings(content)
    for change in changes:
        _apply_change(content, change)
    return Recipe.parse(content)


def recipe_names() -> list[str]:
    """The recipes that the package has."""
    paths = sorted(PACKAGED_RECIPES.rglob("*.yaml"))
    return [path.relative_to(PACKAGED_RECIPES).with_suffix("").as_posix() for path in paths]


def _read_content(name: str, extended: tuple[Path, ...]) -> dict[str, Any]:
    """A recipe's fields, with those of the recipe that it extends in place of the missing ones.

    Args:
        name: see `load_recipe`.
        extended: the files that lead to this one.
    """
    packaged = PACKAGED_RECIPES / f"{name}.yaml"
    path = packaged if packaged.is_file() and not Path(name).is_file() else Path(name)
    if not path.is_file():
        listed = ", ".join(recipe_names())
        raise PalamError(f"no recipe {name}: give a YAML file, or one of: {listed}")
    if path in extended:
        raise PalamError(f"{path} extends itself")
    content = read_settings(path, RECIPE_FIELDS | {"extends"})
    base = content.pop("extends", None)
    if base is None:
        return content
    beside = path.parent / str(base)
    base_name = str(beside if beside.is_file() else base)
    inherited = _read_content(base_name, (*extended, path))
    base_methods = inherited.get("methods") or {}
    methods = content.get("methods") or {}
    if isinstance(base_methods, dict) and isinstance(methods, dict):
        content["methods"] = {**base_methods, **methods}
    return {**inherited, **content}


def _apply_change(content: dict[str, Any], change: str) -> None:
    """Change a recipe's content as one `--set` has it."""
    key, sign, text = change.partition("=")
    key = key.strip().replace("-", "_")
    if not sign:
        raise PalamError(f"--set takes setting=value, not {change!r}")
    try:
        value = parse_yaml(text)
    except ValueError:
        raise PalamError(f"--set {key}: {text[:MAX_SHOWN]!r} is not YAML") from None
    key = key.removeprefix("train.")  # as the recipe has it
    if key == "methods":
        _select_methods(content, text.split(","))
    elif key.startswith("read."):
        content["read"] = {**(content.get("read") or {}), key.removeprefix("read."): value}
    elif key in RECIPE_FIELDS:
        content[key] = value
        check_mappings(content)
    elif key in TRAIN_SETTINGS:
        content["train"] = {**(content.get("train") or {}), key: value}
        for method in content["methods"].values():
            if method:
                method.pop(key, None)
    else:
        raise PalamError(f"there is no setting {key!r}")


def _select_methods(content: dict[str, Any], names: list[str]) -> None:
    """Leave out the other methods."""
    methods = content["methods"]
    for name in names:
        if name not in methods:
            raise PalamError(f"no method {name!r}: there are {', '.join(methods)}")
    content["methods"] = {name: methods[name] for name in names}
    if content.get("against") not in names:
        content["against"] = names[0]
