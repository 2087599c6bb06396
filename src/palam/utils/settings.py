"""What the settings classes share: values as their fields' types, and YAML files of settings.

Files and command lines hold text and plain values. [`convert`] is the one place where they become
what a field is declared as; whether a value is in its range is checked by the class that owns it.
"""

import dataclasses
import math
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

from palam.errors import PalamError
from palam.utils.texts import first_line, shown

MAX_INT = 2**63 - 1
"""The greatest whole number that a setting can be; the least is its negative."""
MAX_FLOAT = sys.float_info.max
FLOAT_RANGE = f"a number from {-MAX_FLOAT:.2g} to {MAX_FLOAT:.2g}, or inf"
MAX_YAML_BYTES = 2**20
"""The largest YAML file that is read: 1 MB."""
UNICODE_BREAKS = "\x85\u2028\u2029"
"""Line breaks that are not those of a keyboard."""
MAX_DIGITS = 400
"""The longest number in YAML."""


class RangeError(ValueError):
    """A number that is too large; its message is what it must be."""


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
    expected = []
    for kind in kinds:
        try:
            return _convert_to(kind, value)
        except RangeError as error:
            expected.append(str(error))
        except (ValueError, TypeError):
            expected.append(_in_words(kind))
    raise _refusal(name, value, " or ".join(expected))


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


def check_range(settings: Any, **ranges: tuple[float, float]) -> None:
    """Refuse a field outside its range, or not a number; None is taken for "not set".

    Args:
        settings: an object with these attributes.
        **ranges: the least and the greatest value by the field's name.

    Raises:
        PalamError: the first such field.
    """
    for name, (smallest, greatest) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not smallest <= value <= greatest:
            raise PalamError(f"{name} is {shown(value)}; it must be from {smallest} to {greatest}")


def read_settings(path: Path, known: Collection[str]) -> dict[str, Any]:
    """A YAML file's settings by name; in the file, names may have hyphens.

    Raises:
        PalamError: unreadable, too large, not a mapping, or a name that is not known or comes
            twice.
    """
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise PalamError(f"{path} must hold settings as `name: value` lines")
    settings: dict[str, Any] = {}
    for written, value in content.items():
        name = str(written).replace("-", "_")
        if name not in known:
            listed = ", ".join(sorted(known))
            raise PalamError(f"{path}: there is no setting {name!r}; the settings are: {listed}")
        if name in settings:
            raise PalamError(f"{path}: the setting {name!r} comes twice")
        settings[name] = value
    return settings


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, see [`parse_yaml`].

    Raises:
        PalamError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML_BYTES + 1)
        if len(content) > MAX_YAML_BYTES:
            raise ValueError(f"it is larger than {MAX_YAML_BYTES // 2**20} MB")
        return parse_yaml(content.decode("utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise PalamError(f"{path} cannot be read as YAML: {first_line(error)}") from None


def parse_yaml(text: str) -> Any:
    """What a text in YAML says, in plain values.

    Aliases (`*name`), which can stand for gigabytes in few lines, and names that come twice in one
    mapping are refused.

    Raises:
        ValueError: it is no such YAML; the message is one line.
    """
    try:
        return yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        # ValueError: a date such as 2024-99-99; RecursionError: brackets without end
        raise ValueError(first_line(error)) from None


def dump_yaml(values: Any) -> str:
    """YAML from which [`parse_yaml`] gives the same plain values, in their order."""
    text: str = yaml.dump(values, Dumper=ExactDumper, sort_keys=False, allow_unicode=True)
    return text


class ExactDumper(yaml.SafeDumper):
    """YAML of plain values, each text of which reads back equal."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Escape Unicode's line breaks, which YAML reads as other ones or as spaces."""
        style = '"' if any(line_break in text for line_break in UNICODE_BREAKS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


ExactDumper.add_representer(str, ExactDumper.represent_text)


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values, that is as large as it looks."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read a node; an alias is refused."""
        if self.check_event(yaml.AliasEvent):
            event: yaml.AliasEvent = self.get_event()  # type: ignore[no-untyped-call]
            raise ValueError(
                f"the alias *{event.anchor} stands for another value; write the value itself"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping; a name that comes twice is refused."""
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise ValueError(f"{key.value!r} comes twice")
                names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Make a number of a length that numbers have; `1:1:1…` is reckoned to base 60."""
        if len(node.value) > MAX_DIGITS:
            raise ValueError(f"Exceeds the limit of {MAX_DIGITS} characters for a number")
        if node.tag == "tag:yaml.org,2002:int":
            return super().construct_yaml_int(node)
        return super().construct_yaml_float(node)


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_number)
PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader.construct_number)


def _refusal(name: str, value: Any, expected: str) -> PalamError:
    return PalamError(f"{name} is {shown(value)}; it must be {expected}")


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
    if type(value) is not int:
        text = _to_text(value).strip()
        digits = text.lstrip("+-")
        # Python does not even read numbers of thousands of digits.
        value = MAX_INT + 1 if digits.isdecimal() and len(digits) > 100 else int(text)
    if abs(value) > MAX_INT:
        raise RangeError(f"a whole number from {-MAX_INT} to {MAX_INT}")
    return int(value)


def _to_float(value: Any) -> float:
    if type(value) is int and abs(value) > MAX_FLOAT:
        raise RangeError(FLOAT_RANGE)
    text = _to_text(value)
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():  # 1e999
        raise RangeError(FLOAT_RANGE)
    return number


def _to_text(value: Any) -> str:
    """Text, a number or a path as text; true and false are none of these."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise TypeError
    return str(value)


def _to_path(value: Any) -> Path:
    text = _to_text(value)
    if "\0" in text:
        raise ValueError
    return Path(text)


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
