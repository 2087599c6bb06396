"""The page of an evaluation: every figure can be read, and nothing else is needed to show it."""

import math
import re

import pytest

from palam.errors import PalamError
from palam.inference.evaluation import Evaluation
from palam.inference.evaluation_page import certainty_rows, evaluation_page
from palam.inference.prediction import Prediction

LABELS = ("a<b", "c")


def prediction(row, label, first, margin=0.4):
    """A prediction whose two probabilities differ by a margin."""
    high, low = (1 + margin) / 2, (1 - margin) / 2
    scores = {name: math.log(high if name == first else low) - 3 for name in LABELS}
    return Prediction(row=row, label=label, prediction=first, scores=scores)


@pytest.fixture
def evaluation():
    evaluation = Evaluation("letters", "own.csv", "some/bridge", labels=LABELS)
    evaluation.add("en", [prediction(0, "a<b", "a<b"), prediction(1, "c", "a<b", 0.1)])
    evaluation.add("si", [prediction(0, "c", "c", 0.25), prediction(5, "c", "c", 0.3)])
    return evaluation


TEXTS = {("en", 0): "one", ("en", 1): "<script>two", ("si", 0): "තුන", ("si", 5): "හතර"}


def test_the_page_has_the_figures_and_needs_no_other_file(evaluation):
    rows = certainty_rows(evaluation, TEXTS, 2)
    page = evaluation_page(evaluation, rows)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;two" in page
    assert page.count('class="heat confusion"') == 2
    cells = re.findall(r'<td style="--v:([\d.]+)"( class="right")?>(\d+)</td>', page)
    assert [(share, count) for share, _, count in cells[:4]] == [
        ("1.000", "1"),
        ("0.000", "0"),
        ("1.000", "1"),
        ("0.000", "0"),
    ]
    assert [bool(right) for _, right, _ in cells[:4]] == [True, False, False, True]
    assert "50.0" in page  # English accuracy, %
    assert "mean of 2" in page
    assert 'lang="si-Sinh"' in page


def test_the_least_certain_come_first(evaluation):
    rows = certainty_rows(evaluation, TEXTS, 3)
    assert [(row.language, row.row, row.text) for row in rows] == [
        ("en", 1, "<script>two"),
        ("si", 0, "තුන"),
        ("si", 5, "හතර"),
    ]
    assert [row.margin for row in rows] == pytest.approx([0.1, 0.25, 0.3])
    first = rows[0]
    assert (first.prediction, first.runner_up, first.label) == ("a<b", "c", "c")
    assert first.confidence == pytest.approx(0.55)
    assert certainty_rows(evaluation, TEXTS, 0) == []


def test_of_generated_answers_nothing_is_certain():
    evaluation = Evaluation("letters", "own.csv", "b", labels=LABELS)
    evaluation.add("en", [Prediction(row=0, label="c", prediction=None, answer="?")])
    with pytest.raises(PalamError, match="method score alone"):
        evaluation.least_certain(1)


def test_of_many_languages_the_first_have_sections(evaluation):
    for number in range(20):
        evaluation.add(f"x{number}", [prediction(0, "c", "c")])
    page = evaluation_page(evaluation)
    assert page.count('class="heat confusion"') == 12
    assert "10 more languages are in the table above alone" in page


def test_a_task_of_numbers_has_accuracy_alone():
    evaluation = Evaluation("mgsm", "test", "b")
    evaluation.add("sw", [Prediction(row=0, label="3", prediction="3", answer="3")])
    assert evaluation.to_report() == evaluation.to_dict()
    page = evaluation_page(evaluation)
    assert "100.0" in page
    assert "macro-F1" not in page
