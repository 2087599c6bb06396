"""Bridges that answer together: the mean of their log-probabilities, in any order."""

import pytest
import torch
from helpers import refusal

from palam.inference.ensemble import (
    EnsembleScorer,
    check_same_form,
    check_same_labels,
    evaluate_together,
)
from palam.inference.evaluation import evaluate
from palam.inference.scoring import LabelScorer
from palam.models.configuration import PalamConfig
from palam.tasks.registry import get_task
from palam.tasks.task import Example

TEXTS = ["The match was won.", "ගෙදර යනවා", "The rice price went up at school."]
LABELS = ["sports", "science/technology", "travel"]


@pytest.fixture(scope="module")
def models(tiny_model):
    """Three bridges: two between the same base models, one to another LLM."""
    return [
        tiny_model(seed=0, mode="prompt", prompt="{text}\nTopic:"),
        tiny_model(seed=1, fusion="last"),
        tiny_model("xlmr", "gpt2", seed=2),
    ]


def ensemble(models, **options):
    return EnsembleScorer([LabelScorer(model, LABELS, **options) for model in models])


def test_a_score_is_the_mean_of_the_bridges_scores(models):
    single = [LabelScorer(model, LABELS).score(TEXTS).tolist() for model in models]
    scores = ensemble(models).score(TEXTS)
    assert scores.shape == (3, 3)
    assert scores.dtype == torch.float32
    for row in range(3):
        for column in range(3):
            mean = sum(scores_of[row][column] for scores_of in single) / 3
            assert scores[row, column].item() == pytest.approx(mean, rel=1e-6)


def test_the_order_of_the_bridges_does_not_matter(models):
    scores = ensemble(models).score(TEXTS)
    first, second, third = models
    assert torch.equal(ensemble([third, first, second]).score(TEXTS), scores)


def test_a_bridge_that_is_there_twice_gives_its_own_scores(models):
    alone = LabelScorer(models[0], LABELS).score(TEXTS)
    assert torch.equal(ensemble([models[0], models[0]]).score(TEXTS), alone)
    assert torch.equal(ensemble(models[:1]).score(TEXTS), alone)


def test_priors_are_subtracted_from_each_bridges_own_scores(models, tiny_model):
    calibrated = tiny_model(seed=3)
    calibrated.config.label_priors = dict.fromkeys(LABELS, -3.0)
    plain = ensemble([models[0], calibrated], calibrated=False).score(TEXTS)
    scores = ensemble([models[0], calibrated]).score(TEXTS)
    assert torch.allclose(scores, plain + 1.5, atol=1e-5)


def test_progress_is_told_once_for_each_text(models):
    told = []
    ensemble(models).score(TEXTS, batch_size=1, progress=told.append)
    assert sum(told) == len(TEXTS)


def test_there_must_be_bridges_of_the_same_labels(models):
    assert refusal(EnsembleScorer, []) == "an ensemble needs a bridge or more"
    scorers = [LabelScorer(models[0], LABELS), LabelScorer(models[1], LABELS[:2])]
    assert "must be the same" in refusal(EnsembleScorer, scorers)


@pytest.fixture(scope="module")
def topics():
    """The task, and rows of two languages whose right labels go round."""
    task = get_task("sib200")
    labels = list(task.labels)
    rows = {}
    for language in ("sin_Sinh", "eng_Latn"):
        rows[language] = [
            Example(row, {"text": text}, labels[row % len(labels)])
            for row, text in enumerate(TEXTS)
        ]
    return task, rows


def test_an_evaluation_takes_the_label_whose_mean_score_is_the_highest(models, topics):
    task, rows = topics
    single = [evaluate(model, task, "dev", rows).predictions for model in models]
    together = evaluate_together(models, task, "dev", rows, name="three")
    assert (together.model, list(together.correct)) == ("three", list(rows))
    assert len(together.predictions) == 2 * len(TEXTS)
    for number, row in enumerate(together.predictions):
        of_models = [predictions[number] for predictions in single]
        for key in ("language", "row", "label"):
            assert {prediction[key] for prediction in of_models} == {row[key]}
        for label, score in row["scores"].items():
            mean = sum(prediction["scores"][label] for prediction in of_models) / 3
            assert score == pytest.approx(mean, rel=1e-6)
        assert row["prediction"] == max(row["scores"], key=row["scores"].get)


def test_an_evaluation_of_one_bridge_is_its_own_in_any_number_and_order(models, topics):
    task, rows = topics
    first, second, third = models
    own = evaluate(first, task, "dev", rows, name="a")
    assert evaluate_together([first], task, "dev", rows, name="a") == own
    assert evaluate_together([first, first], task, "dev", rows, name="a") == own
    one_order = evaluate_together([first, second, third], task, "dev", rows)
    assert evaluate_together([third, first, second], task, "dev", rows) == one_order


def test_an_evaluation_tells_its_progress_for_each_bridge(models, topics):
    told = []
    task, rows = topics
    evaluate_together(models, task, "dev", rows, progress=told.append)
    assert sum(told) == 3 * 2 * len(TEXTS)


def test_what_has_no_scores_is_not_evaluated_together(models, topics):
    task, rows = topics
    assert refusal(evaluate_together, [], task, "dev", rows) == "an ensemble needs a bridge or more"
    generated = {"method": "generate"}
    assert "the method score" in refusal(evaluate_together, models, task, "dev", rows, **generated)
    reading = get_task("reading")
    assert "a task with labels" in refusal(evaluate_together, models, reading, "dev", rows)


def config(name, labels, text="{text}", **task):
    pairs = [[label, words] for label, words in labels.items()]
    made = PalamConfig(task={"name": "a", "family": "a", "labels": pairs, "text": text, **task})
    made.name_or_path = name
    return made


def test_bridges_of_other_labels_need_labels_that_are_given():
    good = config("one", {"a": "good", "b": "bad"})
    other_order = config("two", {"b": "bad", "a": "good"})
    stars = config("three", {"1": "one", "2": "two"})
    check_same_labels([good, other_order])
    line = refusal(check_same_labels, [good, other_order, stars], advice=", or others")
    assert line.startswith("three has the labels 1, 2, and one a, b; ")
    assert line.endswith("need the same, or others")


def test_bridges_must_read_the_same_of_a_row():
    labels = {"a": "good", "b": "bad"}
    plain = config("one", labels)
    paper = config("two", labels, text="Review: {text} Label: ")
    review = config("three", labels, columns={"text": "review", "label": "stars"})
    pairs = config("four", labels, text="{premise} {hypothesis}")
    assert "must read the same" in refusal(check_same_form, [plain, paper])
    assert "must read the same" in refusal(check_same_form, [plain, review])
    check_same_form([review, config("five", labels, columns={"text": "review", "label": "kind"})])
    check_same_form([plain, review, pairs], "Body")
    assert "must read the same" in refusal(check_same_form, [plain, paper], "Body")
