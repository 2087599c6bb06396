"""The columns that a command adds to a user's rows, kept apart from the user's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.tasks.readers import NumberedRow

PREFIX = "palam_"
"""In front of an added column's name, where the user has a column of that name."""


def colliding_columns(own: Iterable[str], added: Iterable[str]) -> list[str]:
    """The names of added columns that the user's own columns have, in the former's order."""
    taken = set(own)
    return [name for name in added if name in taken]


def free_names(own: Iterable[str], added: Iterable[str]) -> dict[str, str]:
    """A name for each added column that none of the user's own columns has.

    Args:
        own: the user's columns.
        added: the columns to add, by their usual names.

    Returns:
        By the usual name: the same, or `palam_<name>` where that is taken.

    Raises:
        PalamError: that is taken as well.
    """
    columns = set(own)
    names = {}
    for name in added:
        free_name = f"{PREFIX}{name}" if name in columns else name
        if free_name in columns:
            raise PalamError(
                f'the input has columns "{name}" and "{free_name}", which are needed for the '
                "results; rename them"
            )
        names[name] = free_name
    return names


def with_results(numbered: NumberedRow, results: Mapping[str, Any]) -> Row:
    """The row with results added to it; of its own values, none is replaced.

    Args:
        numbered: the user's row.
        results: by column, as [`free_names`] calls them for the first row.

    Raises:
        PalamError: this row has a column that the rows before it did not have.
    """
    place, row = numbered
    for name in colliding_columns(row, results):
        raise PalamError(f'{place}: the column "{name}" is needed for the results; rename it')
    return {**row, **results}
