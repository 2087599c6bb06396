"""How far an answer can be made to keep to its text; see [`guided_scores`]."""

import math

from palam.errors import PalamError

NO_GUIDANCE = 1.0
"""The scale with which an answer is as it comes."""
MOST_GUIDANCE = 100.0
"""The highest scale; far above any use, and far below what a number of 32 bits can hold."""


def check_guidance_scale(scale: float) -> None:
    """Refuse what is no scale.

    Raises:
        PalamError: it is not from `NO_GUIDANCE` to `MOST_GUIDANCE`.
    """
    if not (math.isfinite(scale) and NO_GUIDANCE <= scale <= MOST_GUIDANCE):
        raise PalamError(
            f"the guidance scale is {scale}; it must be from {NO_GUIDANCE:g} (none) to "
            f"{MOST_GUIDANCE:g}"
        )
