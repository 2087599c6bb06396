"""A task reads its labels, renders its texts and refuses templates that do not fit."""

import unicodedata

import pytest

from palam.errors import PalamError
from palam.tasks.registry import TASKS, get_task
from palam.tasks.task import Example, Task, last_number


def a_task(**changes):
    settings = {
        "name": "t",
        "family": "f",
        "labels": {"a": "A"},
        "prompt": "{text}?",
        "paper_text": "{text}:",
    }
    return Task(**{**settings, **changes})


LABELLED = {name: task for name, task in TASKS.items() if task.labels}


@pytest.mark.parametrize("task", LABELLED.values(), ids=LABELLED)
def test_labels_can_be_told_apart(task):
    assert len(set(task.labels.values())) == len(task.labels)
    for number, (label, words) in enumerate(task.labels.items()):
        numbered = (number, str(number), float(number), f"{number}.0")
        if label.isdigit():
            numbered = (float(label), f"{label}.0")
        spelt = (f" {label}\u00a0", unicodedata.normalize("NFD", words))
        for value in (label, label.upper(), words, words.lower(), *spelt, *numbered):
            assert task.label_of(value) == label
    for wrong in ("", "maybe", None, 1.5, [], -1, "-1", len(task.labels) + 1, "9" * 5000, "²"):
        assert task.label_of(wrong) is None


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("Natalia sold 48/2 = 24 clips.\n#### 72", "72"),
        ("#### 1,072.50 dollars, not 3", "1072.5"),
        ("It is -3.0 degrees", "-3"),
        ("first 5, then 1,000,000.", "1000000"),
        ("১৮ টি", "18"),
        ("none at all", None),
        ("", None),
        ("#### nothing", None),
    ],
)
def test_the_number_that_an_answer_comes_to(answer, number):
    assert last_number(answer) == number


def test_labels_that_are_fractions_are_not_counted():
    task = a_task(labels={"0.5": "half", "1.5": "more"})
    assert task.label_of(0.5) == task.label_of("0.5") == "0.5"
    assert task.label_of(0) is None
    assert a_task(labels={"-1": "a", "0": "b"}).label_of(-1.0) == "-1"


def test_a_task_of_numbers_answers_with_the_working():
    task = get_task("gsm8k")
    assert (
        task.answer("She sold 48/2 = <<48/2=24>>24 clips.\n#### 24")
        == "She sold 48/2 = 24 clips.\n#### 24"
    )
    assert [task.label_of(value) for value in ("72", 72, "", None)] == ["72", "72", None, None]
    assert get_task("sib200").answer("science/technology") == "science"
    assert get_task("mgsm").family == task.family


def test_the_papers_texts():
    nli = Example(0, {"premise": "He {sat}.", "hypothesis": "He stood."}, "contradiction")
    assert TASKS["xnli"].render(nli, "paper") == "Premise: He {sat}. Hypothesis: He stood. Label: "
    assert TASKS["xnli"].render(nli, "chat") == "Premise: He {sat}. Hypothesis: He stood."
    assert TASKS["sinhala_news"].render({"text": "x"}, "paper") == "News Sentence: x Category: "
    assert TASKS["sib200"].render({"text": "x"}, "paper") == "Text: x Topic: "
    assert TASKS["sib200"].render({"text": "x"}) == "x"
    assert list(TASKS["xnli"].labels.items()) == [
        ("entailment", "Entailment"),
        ("neutral", "Neutral"),
        ("contradiction", "Contradiction"),
    ]
    assert TASKS["sinhala_news"].labels["Science/Technology"] == "Science"
    assert TASKS["amazon_reviews"].labels == {
        "1": "Very Negative",
        "2": "Negative",
        "3": "Neutral",
        "4": "Positive",
        "5": "Very Positive",
    }
    assert TASKS["amazon_reviews"].label_of(5) == "5"
    with pytest.raises(PalamError, match="unknown mode"):
        TASKS["xnli"].render(nli, "plain")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "{txt}"}, "must hold {text}"),
        ({"paper_text": "Text: "}, "must hold {text}"),
        ({"text": "{text.__class__}"}, "must hold {text}"),
        ({"text": "{text"}, "not a format string"),
        ({"text": "{text:>1000000000}"}, "must hold {text}"),
        ({"text": "{text!r}"}, "must hold {text}"),
        ({"prompt": "Which?"}, "must hold {text} once"),
        ({"prompt": "{text}{text}"}, "must hold {text} once"),
        ({"labels": {}}, "no labels"),
    ],
)
def test_a_wrong_template_is_refused_in_one_line(changes, message):
    with pytest.raises(PalamError) as caught:
        a_task(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
