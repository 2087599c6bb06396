"""Figures of classification: by label, macro-F1, the confusion of labels, the majority's accuracy.

They are those of scikit-learn with `zero_division=0`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """How well one label is found."""

    precision: float
    """Share of the rows with this prediction that have this label; 0 without such rows."""
    recall: float
    """Share of the rows with this label that are found; 0 without such rows."""
    f1: float
    """Harmonic mean of precision and recall."""
    support: int
    """Rows with this label."""


@dataclass(frozen=True)
class ClassificationMetrics:
    """Gold labels and predictions, counted.

    Args:
        labels: those that count, in the order of all figures.
        gold: of every row, one of the labels.
        predictions: of every row, one of the labels, or None for an answer that is none.
    """

    labels: Sequence[str]
    gold: Sequence[str]
    predictions: Sequence[str | None]

    @cached_property
    def pairs(self) -> Counter[tuple[str, str | None]]:
        """How many rows have each gold label with each prediction."""
        return Counter(zip(self.gold, self.predictions, strict=True))

    @property
    def accuracy(self) -> float:
        """Share of right predictions; 0 without rows."""
        right = sum(
            count for (label, prediction), count in self.pairs.items() if label == prediction
        )
        return _ratio(right, len(self.gold))

    @property
    def macro_f1(self) -> float:
        """The mean of the F1 of those labels that are in the data or predicted."""
        present = {*self.gold, *self.predictions}
        scores = [metrics.f1 for label, metrics in self.by_label.items() if label in present]
        return _ratio(sum(scores), len(scores))

    @cached_property
    def by_label(self) -> dict[str, LabelMetrics]:
        """The figures of each label."""
        support = Counter(self.gold)
        predicted = Counter(self.predictions)
        metrics = {}
        for label in self.labels:
            right = self.pairs[label, label]
            metrics[label] = LabelMetrics(
                precision=_ratio(right, predicted[label]),
                recall=_ratio(right, support[label]),
                f1=_ratio(2 * right, predicted[label] + support[label]),
                support=support[label],
            )
        return metrics

    @property
    def has_other_answers(self) -> bool:
        """Whether a prediction is none of the labels."""
        return None in self.predictions

    @property
    def confusion(self) -> list[list[int]]:
        """Rows by gold label (down) and prediction (across).

        Where an answer is none of the labels, a last column counts such answers.
        """
        columns: list[str | None] = list(self.labels)
        if self.has_other_answers:
            columns.append(None)
        return [[self.pairs[label, column] for column in columns] for label in self.labels]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `macro_f1`, `by_label` and `confusion`."""
        return {
            "macro_f1": self.macro_f1,
            "by_label": {label: vars(metrics) for label, metrics in self.by_label.items()},
            "confusion": {
                "labels": list(self.labels),
                "counts": self.confusion,
            },
        }


def majority_accuracy(train_labels: Sequence[str], labels: Sequence[str]) -> float:
    """The accuracy of always answering the label that is most frequent in training.

    Args:
        train_labels: of the training rows; of equally frequent labels, the first counts.
        labels: of the rows to measure on.
    """
    if not train_labels:
        return 0.0
    ((majority, _),) = Counter(train_labels).most_common(1)
    return _ratio(list(labels).count(majority), len(labels))


def _ratio(part: float, whole: float) -> float:
    """A quotient; 0 of nothing."""
    if not whole:
        return 0.0
    return part / whole
