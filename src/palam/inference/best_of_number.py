"""How many answers may be made to a text, to take the best; see [`answers_to_each`]."""

from typing import Any

from palam.errors import PalamError
from palam.models.guidance_scale import NO_GUIDANCE

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


def reading_arguments(guidance_scale: float | None, best_of: int) -> dict[str, Any]:
    """The arguments of [`palam.generate`] for answers that are guided or the best of several.

    Args:
        guidance_scale: see [`guided_scores`]; None is not set.
        best_of: of how many answers the best is given.

    Returns:
        Those that are not as an answer comes.
    """
    arguments: dict[str, Any] = {}
    if guidance_scale not in (None, NO_GUIDANCE):
        arguments["guidance_scale"] = guidance_scale
    if best_of != 1:
        arguments["best_of"] = best_of
    return arguments
