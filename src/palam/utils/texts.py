"""Texts as callers of the Python functions give them, checked."""

import math
from collections.abc import Iterable, Mapping

from palam.errors import PalamError


def checked_texts(texts: Iterable[str], what: str = "texts") -> list[str]:
    """Texts as a list, each of them a string.

    Args:
        texts: a list, a column of pandas, an array, ...
        what: they are, in the plural, for messages: `"labels"`.

    Raises:
        PalamError: one string in place of several, or something among them that is no string, such
            as None or the NaN with which pandas fills what is missing.
    """
    if isinstance(texts, str):
        raise PalamError(
            f"the {what} are one string; give a list of strings, for one alone [{what[:-1]}]"
        )
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise PalamError(f"the {what} are {_kind(texts)}; give a list of strings")
    checked = []
    for index, text in enumerate(texts):
        checked.append(checked_text(text, f"number {index} of the {what} (counted from 0)"))
    return checked


def checked_text(text: object, what: str) -> str:
    """A text, if it is a string.

    Args:
        text: anything.
        what: it is, for the message.

    Raises:
        PalamError: it is no string.
    """
    if not isinstance(text, str):
        raise PalamError(f"{what} is {_kind(text)}, not a string; fill in or leave out such rows")
    return text


def _kind(value: object) -> str:
    """What a value is, for a message."""
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return f"of type {type(value).__name__}"
