"""Values of settings as a recipe's YAML gives them."""

import math
from typing import Any

from palam.errors import PalamError


def parse_rates(lr: Any) -> tuple[float, ...]:
    """The learning rates that a recipe gives: one number, or a list to choose from.

    Raises:
        PalamError: it is neither, or the list is empty.
    """
    candidates = lr if isinstance(lr, list) else [lr]
    try:
        rates = tuple(float(rate) for rate in candidates)
    except (TypeError, ValueError):
        rates = ()
    if not rates:
        raise PalamError(f"lr is {lr!r}; it must be a number, or a list of some to choose from")
    return rates


def check_rates(name: str, lr: Any) -> None:
    """Refuse learning rates that nothing can be trained at.

    Args:
        name: of the setting.
        lr: as in [`parse_rates`].

    Raises:
        PalamError: it says what would be right.
    """
    for rate in parse_rates(lr):
        if not (math.isfinite(rate) and rate > 0):
            raise PalamError(f"{name} is {rate}; it must be above 0")


def check_count(name: str, number: Any) -> None:
    """Refuse what is no number of things.

    Args:
        name: of the setting.
        number: its value.

    Raises:
        PalamError: it says what would be right.
    """
    if type(number) is not int or number < 1:
        raise PalamError(f"{name} is {number!r}; it must be a whole number of at least 1")


def check_text(name: str, value: Any) -> None:
    """Refuse what is no text.

    Args:
        name: of the setting.
        value: its value.

    Raises:
        PalamError: it says what would be right.
    """
    if not isinstance(value, str) or not value:
        raise PalamError(f"{name} is {value!r}; it must be a text")
