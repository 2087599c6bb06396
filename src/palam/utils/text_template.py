"""Templates that make one text of a row's columns: `"Title: {title} Body: {body}"`.

What stands between two braces is a column's name, whatever characters it holds: `{review.text}`,
`{0}`. Doubled braces are literal ones. There are no conversions and no formats.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from palam.errors import PalamError

PIECE = re.compile(r"(?P<literal>\{\{|\}\}|[^{}]+)|\{(?P<slot>[^{}]*)\}")


class Piece(NamedTuple):
    """A part of a template: a literal text, or a slot's name."""

    text: str
    is_slot: bool


def slots(template: str) -> set[str]:
    """The names in a template's slots.

    Raises:
        PalamError: a brace that is neither doubled nor part of a slot.
    """
    return {text for text, is_slot in _pieces(template) if is_slot}


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its slots replaced.

    Args:
        template: with slots.
        fields: a text for each slot, by name.

    Raises:
        PalamError: see [`slots`]; or a slot that is not among the fields.
    """
    parts = []
    for text, is_slot in _pieces(template):
        if is_slot and text not in fields:
            raise PalamError(
                f"the template {template!r} has a slot {{{text}}}, which nothing fills"
            )
        parts.append(fields[text] if is_slot else text)
    return "".join(parts)


def _pieces(template: str) -> Iterator[Piece]:
    """The template's parts in order."""
    position = 0
    while position < len(template):
        match = PIECE.match(template, position)
        if match is None:
            raise PalamError(
                f"the template {template!r} is not a format string: the brace at character "
                f"{position + 1} has no partner; a literal brace is doubled"
            )
        slot = match["slot"]
        if slot is not None:
            yield Piece(slot, is_slot=True)
        else:
            yield Piece(match["literal"].replace("{{", "{").replace("}}", "}"), is_slot=False)
        position = match.end()
