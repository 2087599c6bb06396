"""How freely tokens are drawn."""

LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is taken each time, as with 0. It would be drawn all but always, and
logits that are divided by numbers as small as 1e-310 are infinite."""


def is_greedy(temperature: float) -> bool:
    """Whether the likeliest token is taken each time, and nothing is drawn.

    Args:
        temperature: that logits are divided by, from 0.
    """
    return temperature < LEAST_TEMPERATURE
