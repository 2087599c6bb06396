"""Texts as callers give them: checked, and made fit to be shown."""

import unicodedata
from collections.abc import Iterable, Mapping, Set
from typing import Any

from palam.errors import PalamError

INVISIBLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of control characters, unpaired surrogates, and line separators."""
BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""Characters that change the direction in which others are shown."""
NO_SEQUENCES = (str, bytes, Mapping, Set)
"""Can be iterated over, but are no texts in an order."""
MAX_SHOWN = 80
"""Characters of a value in a message."""


def checked_texts(texts: Iterable[Any], what: str = "texts") -> list[str]:
    """The texts of a sequence, each of them a string.

    Args:
        texts: a list, a tuple, an array or a column of pandas; any iterable that has an order.
        what: they are, for messages.

    Raises:
        PalamError: a single string, no sequence, or a row that holds no string (None, not a
            number); names the row, from 0.
    """
    if isinstance(texts, str):
        raise PalamError(f"{what} must be a sequence of strings, not one string: give [text]")
    is_table = getattr(texts, "ndim", 1) != 1  # an array or a data frame of several columns
    if is_table or isinstance(texts, NO_SEQUENCES) or not isinstance(texts, Iterable):
        kind = type(texts).__name__
        raise PalamError(f"{what} must be a sequence of strings, such as a list, not a {kind}")
    checked = []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            shown = printable(str(text)[:40])
            raise PalamError(f"{what}: row {row} holds {shown} ({type(text).__name__}), not a text")
        checked.append(str(text))  # of numpy's strings too, a plain one
    return checked


def printable(text: str) -> str:
    """The text with what a terminal would obey, or could not show, written out: `\\x1b`.

    Control characters (line feeds among them), unpaired surrogates, separators of lines, and marks
    of direction are replaced by their escapes; joiners and all other characters stay.
    """
    characters = []
    for character in text:
        if unicodedata.category(character) in INVISIBLE or character in BIDI_CONTROLS:
            character = character.encode("unicode_escape").decode("ascii")
        characters.append(character)
    return "".join(characters)


def shown(value: Any) -> str:
    """A value for messages, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return "too large a value to be shown"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def first_line(error: BaseException) -> str:
    """An error's message, up to its first line's end; its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
