"""What the settings classes share: values as their fields' types, and YAML files of settings.

Files and command lines hold text and plain values. [`convert`] is the one place where they become
what a field is declared as; whether a value is in its range is checked by the class that owns it.
"""

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

from palam.errors import PalamError


def convert_fields(settings: Any) -> None:
    """Give every field of a settings dataclass, frozen or not, the type that it is declared with.

    A field with `metadata["names"]` takes one of these names.

    Raises:
        PalamError: a value that is not of the field's type, or none of its names.
    """
    annotations = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        converted = convert(
            field.name,
            getattr(settings, field.name),
            annotations[field.name],
            names=field.metadata.get("names"),
        )
        object.__setattr__(settings, field.name, converted)


def convert(name: str, value: Any, annotation: Any, names: Collection[str] | None = None) -> Any:
    """A value as an annotation's type.

    - `bool` accepts true, false and these two words;
    - `int` a whole number or its text;
    - `float` a number or its text, `1e-3`, `inf` and `nan` among them;
    - `str` and `Path` text, a number or a path;
    - `Literal["a", "b"]` one of these;
    - `list[int]` and `tuple[int, ...]` a list or tuple, of which each item is converted;
    - `dict` a mapping, whose values are not converted;
    - `Any` anything; another class an instance of it.

    With `None` in a union, None is accepted too; of several other members (`int | str`), the first
    that accepts the value counts.

    Args:
        name: the setting's, for messages.
        value: of any type.
        annotation: one of the above.
        names: those that are known, where the value must be one of them.

    Raises:
        PalamError: the value cannot be converted; the message says what it must be.
    """
    alternatives = _alternatives(annotation)
    if value is None and types.NoneType in alternatives:
        return None
    if names is not None:
        if value in list(names):
            return value
        raise _refusal(name, value, f"one of: {', '.join(names)}")
    kinds = [alternative for alternative in alternatives if alternative is not types.NoneType]
    for kind in kinds:
        try:
            return _convert_to(kind, value)
        except (ValueError, TypeError):
            continue
    raise _refusal(name, value, " or ".join(_in_words(kind) for kind in kinds))


def plain(value: Any) -> Any:
    """A setting as YAML and JSON can hold it; [`convert`] restores it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def check_least(settings: Any, **least: float) -> None:
    """Refuse a field below its least value, or not a number; None is taken for "not set".

    Args:
        settings: an object with these attributes.
        **least: the least value by the field's name.

    Raises:
        PalamError: the first such field.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:
            raise PalamError(f"{name} is {value}; it must be at least {smallest}")


def read_settings(path: Path, known: Collection[str]) -> dict[str, Any]:
    """A YAML file's settings by name; in the file, names may have hyphens.

    Raises:
        PalamError: unreadable, not a mapping, or a name that is not known.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: not UTF-8, or a date such as 2024-99-99; RecursionError: brackets without end
        first_line = str(error).splitlines()[0]
        raise PalamError(f"{path} cannot be read as YAML: {first_line}") from None
    if not isinstance(content, dict):
        raise PalamError(f"{path} must hold settings as `name: value` lines")
    settings = {str(name).replace("-", "_"): value for name, value in content.items()}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise PalamError(f"{path}: there is no setting {name!r}; the settings are: {listed}")
    return settings


def _refusal(name: str, value: Any, expected: str) -> PalamError:
    return PalamError(f"{name} is {value!r}; it must be {expected}")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of another annotation, itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _convert_to(kind: Any, value: Any) -> Any:
    """A value as one kind, no union. ValueError or TypeError if it is none."""
    if kind is Any:
        return value
    origin = get_origin(kind) or kind
    if origin is Literal:
        return _one_of(get_args(kind), value)
    if origin in (list, tuple):
        return origin(_items(kind, value))
    if origin in KINDS:
        return KINDS[origin].convert(value)
    if not isinstance(value, origin):
        raise TypeError
    return value


def _one_of(options: tuple[Any, ...], value: Any) -> Any:
    if value not in options:
        raise ValueError
    return value


def _items(kind: Any, value: Any) -> list[Any]:
    """The items of a list or tuple, each as the type that `kind` gives them."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError
    item_kinds = get_args(kind)
    if not item_kinds:
        return list(value)
    return [convert("an item", item, item_kinds[0]) for item in value]


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise ValueError


def _to_int(value: Any) -> int:
    if type(value) is int:
        return value
    return int(_to_text(value))


def _to_float(value: Any) -> float:
    return float(_to_text(value))


def _to_text(value: Any) -> str:
    """Text, a number or a path as text; true and false are none of these."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise TypeError
    return str(value)


def _to_path(value: Any) -> Path:
    return Path(_to_text(value))


def _to_dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return dict(value)


class Kind(NamedTuple):
    """A type that a setting can have.

    Attributes:
        words: what it is called in messages.
        convert: makes a value one; ValueError or TypeError if it is none.
    """

    words: str
    convert: Callable[[Any], Any]


KINDS: dict[Any, Kind] = {
    bool: Kind("true or false", _to_bool),
    int: Kind("a whole number", _to_int),
    float: Kind("a number", _to_float),
    str: Kind("text", _to_text),
    Path: Kind("a path", _to_path),
    dict: Kind("`name: value` pairs", _to_dict),
}


def _in_words(kind: Any) -> str:
    """What a value of this kind is, for messages."""
    origin = get_origin(kind) or kind
    members = get_args(kind)
    if origin is Literal:
        return f"one of: {', '.join(map(str, members))}"
    if origin in (list, tuple):
        return f"a list, each item {_in_words(members[0])}" if members else "a list"
    if origin in KINDS:
        return KINDS[origin].words
    return f"a {getattr(origin, '__name__', origin)}"
