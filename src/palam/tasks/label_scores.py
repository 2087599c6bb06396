"""Scores of labels as `palam classify` writes them: log-probabilities, which need not add up."""

import math
from collections.abc import Iterable

SCORES = "scores"
"""The result that is a number for each label; flat formats have a column a label in its place."""


def normalised(scores: Iterable[float]) -> list[float]:
    """The probability of each label among all of them, from their log-probabilities."""
    values = list(scores)
    largest = max(values)
    weights = [math.exp(value - largest) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]
