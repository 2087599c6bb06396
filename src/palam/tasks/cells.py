"""Values of tables: as JSON has them, and as the text that a cell shows."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

Plain = str | int | float | bool | None | list[Any] | dict[str, Any]
"""What a row holds: the types of JSON."""
EXACT_INTEGERS = 2**53
"""Whole numbers up to this one have a float of their own."""


def plain_value(value: Any) -> Plain:
    """A value of a typed table as JSON has it; what is missing is None.

    Dates and times are ISO 8601 (`2024-01-05`, of a midnight without the time), NaN is missing, and
    what JSON has no type for (decimals, infinity) is its text.
    """
    if isinstance(value, float):
        return _plain_float(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime):
        is_day = value.timetz() == time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain_value(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(element) for element in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _plain_float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def cell_text(value: Any) -> str:
    """A value as the text that a cell of a spreadsheet shows.

    A missing one is empty, a whole number has no fraction (`3`, not `3.0`), a list or an object is
    JSON.
    """
    flat = flat_value(value)
    if flat is None:
        return ""
    if isinstance(flat, float) and flat.is_integer() and abs(flat) <= EXACT_INTEGERS:
        return str(int(flat))
    return str(flat)


def flat_value(value: Any) -> str | int | float | bool | None:
    """A value as a cell holds it: a list or an object as JSON text, others as [`plain_value`]."""
    plain = plain_value(value)
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False)
    return plain
