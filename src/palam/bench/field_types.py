"""Whether values from a file are of the types that a dataclass declares."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from palam.errors import PalamError
from palam.utils.texts import shown

MAY_BE_INFINITE = frozenset({"validation_loss"})


def check_fields(row_class: type[Any], values: Any, *, others: bool = True) -> None:
    """Refuse values that are not those of a dataclass's fields.

    Args:
        row_class: the dataclass.
        values: by name.
        others: whether names that are no fields are allowed.

    Raises:
        PalamError: no mapping, a field that is missing, or a value of another type; numbers must be
            finite.
    """
    if not isinstance(values, Mapping):
        raise PalamError("it holds no names and values")
    annotations = get_type_hints(row_class)
    for field in fields(row_class):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if field.name not in values:
            if not has_default:
                raise PalamError(f"it lacks {field.name}")
            continue
        infinite = field.name in MAY_BE_INFINITE
        if not _is_of(values[field.name], annotations[field.name], infinite):
            raise PalamError(f"its {field.name} is {shown(values[field.name])}")
    unknown = [] if others else sorted(set(values) - set(annotations))
    if unknown:
        raise PalamError(f"it has {shown(unknown[0])}, which is no part of it")


def _is_of(value: Any, annotation: Any, infinite: bool = False) -> bool:
    """Whether a value of JSON is of a type: text, numbers, lists and mappings of these."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_is_of(value, member, infinite) for member in members)
    if origin is list:
        return isinstance(value, list) and all(_is_of(item, members[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_of(item, members[1]) for item in value.values())
    if annotation is float:
        is_number = type(value) in (int, float)
        return is_number and (_is_finite(value) or (infinite and value == math.inf))
    return annotation is Any or type(value) is annotation


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number of hundreds of digits
        return False
