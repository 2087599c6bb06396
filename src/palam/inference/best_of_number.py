"""How many answers may be made to a text, to take the best; see [`answers_to_each`]."""

from palam.errors import PalamError

MOST_ANSWERS = 64
"""A bound on time and memory."""


def check_best_of(number: int) -> None:
    """Refuse what is no number of answers.

    Raises:
        PalamError: it is no whole number from 1 to `MOST_ANSWERS`.
    """
    if type(number) is not int:
        raise PalamError(f"best_of is {number!r}; it must be a whole number")
    if not 1 <= number <= MOST_ANSWERS:
        raise PalamError(f"best_of is {number}; it must be from 1 to {MOST_ANSWERS}")
