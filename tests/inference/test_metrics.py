"""Figures of classification, equal to scikit-learn's."""

import random

import pytest

from palam.inference.metrics import ClassificationMetrics, majority_accuracy

LABELS = ("sports", "health", "travel", "politics")
NONE = "no label"


def drawn(seed, with_other_answers):
    """Gold labels and predictions; one label is never gold, one never predicted."""
    generator = random.Random(seed)
    gold = generator.choices(LABELS[:3], [5, 2, 1], k=60)
    answers = [*LABELS[:2], LABELS[3], *([None] if with_other_answers else [])]
    predictions = [
        label if label in answers and generator.random() < 0.6 else generator.choice(answers)
        for label in gold
    ]
    return gold, predictions


@pytest.mark.parametrize("with_other_answers", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_scikit_learn(seed, with_other_answers):
    sklearn = pytest.importorskip("sklearn.metrics")
    gold, predictions = drawn(seed, with_other_answers)
    metrics = ClassificationMetrics(LABELS, gold, predictions)
    words = [NONE if prediction is None else prediction for prediction in predictions]
    figures = sklearn.precision_recall_fscore_support(gold, words, labels=LABELS, zero_division=0)
    for label, *expected in zip(LABELS, *figures, strict=True):
        of_label = metrics.by_label[label]
        actual = (of_label.precision, of_label.recall, of_label.f1, of_label.support)
        assert actual == pytest.approx(tuple(expected))
    assert metrics.accuracy == pytest.approx(sklearn.accuracy_score(gold, words))
    present = sorted({*gold, *words} - {NONE})
    macro = sklearn.f1_score(gold, words, labels=present, average="macro", zero_division=0)
    assert metrics.macro_f1 == pytest.approx(macro)
    columns = [*LABELS, NONE] if with_other_answers else LABELS
    confusion = sklearn.confusion_matrix(gold, words, labels=columns)
    assert metrics.confusion == confusion[: len(LABELS)].tolist()


def test_a_label_that_is_nowhere_does_not_count_and_nothing_is_zero():
    metrics = ClassificationMetrics(("a", "b", "c"), ["a", "b"], ["a", "b"])
    assert (metrics.accuracy, metrics.macro_f1) == (1.0, 1.0)
    nothing = ClassificationMetrics(("a", "b"), [], [])
    assert (nothing.accuracy, nothing.macro_f1) == (0.0, 0.0)


def test_the_majority_is_that_of_the_training_rows():
    assert majority_accuracy(["a", "b", "b"], ["a", "a", "b"]) == pytest.approx(1 / 3)
    assert majority_accuracy(["a", "b"], ["a"]) == 1.0  # of equally frequent ones, the first
    assert majority_accuracy([], ["a"]) == 0.0
