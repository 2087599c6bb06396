"""Rows that fail: each gets its error, and the others their results."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.utils.texts import first_line

ERROR = "error"
"""The column that says why a row has no results; empty where it has."""
ROW_ERRORS = (PalamError, RuntimeError, ValueError, LookupError)
"""What a single row can make a model raise."""
DEVICE_FAILURE = "CUDA error"
"""How an error begins that is no row's fault: nothing can be read after it."""


class Failure(NamedTuple):
    """Why a row has no results."""

    reason: str
    """One line."""


def results_or_failures(
    read: Callable[[list[int]], list[Row]], rows: Sequence[int]
) -> list[Row | Failure]:
    """The results of each row, or why there are none.

    Where rows cannot be read together, each half is tried, down to the one that fails.

    Args:
        read: gives the results of some rows, by their numbers.
        rows: their numbers.

    Raises:
        RuntimeError: the device failed.
    """
    if not rows:
        return []
    try:
        return list(read(list(rows)))
    except ROW_ERRORS as error:
        if str(error).startswith(DEVICE_FAILURE):
            raise
        if len(rows) == 1:
            return [Failure(one_line(error))]
    half = len(rows) // 2
    return [*results_or_failures(read, rows[:half]), *results_or_failures(read, rows[half:])]


def one_line(error: BaseException) -> str:
    """What an error says, in one line; of another library's error also its kind."""
    line = first_line(error)
    kind = type(error).__name__
    if isinstance(error, PalamError) or line == kind:
        return line
    return f"{kind}: {line}"
