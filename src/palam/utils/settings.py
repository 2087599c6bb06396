"""What the settings classes share: values as their fields' types, and YAML files of them."""

import dataclasses
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from palam.errors import PalamError

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "`name: value` pairs",
}


def convert_fields(settings: Any) -> None:
    """Give every field of a settings dataclass, frozen or not, the type that it is declared with.

    Files and command lines hold text: `"1e-3"` becomes a number, a path's text a path. A field
    with `metadata["names"]` takes one of these names; a `Literal` field one of its own.

    Raises:
        PalamError: a value that is not of the field's type, or none of its names.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        converted = convert(field.name, value, hints[field.name], field.metadata.get("names"))
        object.__setattr__(settings, field.name, converted)


def convert(name: str, value: Any, annotation: Any, names: Collection[str] | None = None) -> Any:
    """A value as an annotation's type.

    Args:
        name: of the setting, for messages.
        value: of any type.
        annotation: `bool`, `int`, `float`, `str`, `Path`, `dict`, a `Literal`, or one with `None`.
        names: those that are known, where the value must be one of them.

    Raises:
        PalamError: it cannot be one.
    """
    options = _alternatives(annotation)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if names is not None or get_origin(kind) is Literal:
        known = list(names if names is not None else get_args(kind))
        if value not in known:
            raise PalamError(
                f"{name} is {value!r}; it must be one of: {', '.join(map(str, known))}"
            )
        return value
    kind = get_origin(kind) or kind
    if kind is Any:
        return value
    if kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
    elif isinstance(value, str | int | float | Path) and not isinstance(value, bool):
        try:
            return kind(str(value))
        except ValueError:
            pass
    raise PalamError(f"{name} is {value!r}; it must be {KINDS.get(kind, kind.__name__)}")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def plain(value: Any) -> Any:
    """A setting as YAML and JSON can hold it."""
    return str(value) if isinstance(value, Path) else value


def check_least(settings: Any, **least: float) -> None:
    """Refuse a field below its least value; None is taken for "not set".

    Raises:
        PalamError: the first such field.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:
            raise PalamError(f"{name} is {value}; it must be at least {smallest}")


def read_settings(path: Path, known: Collection[str]) -> dict[str, Any]:
    """A YAML file's settings; names may have hyphens.

    Raises:
        PalamError: unreadable, not a mapping, or a name that is not known.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise PalamError(f"{path} cannot be read as YAML: {first_line}") from None
    if not isinstance(content, dict):
        raise PalamError(f"{path} must hold settings as `name: value` lines")
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise PalamError(f"{path}: there is no setting {name!r}; the settings are: {listed}")
    return settings
