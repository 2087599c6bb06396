"""Bridges that answer together: the mean of their log-probabilities, in any order."""

import pytest
import torch
from helpers import refusal

from palam.inference.ensemble import EnsembleScorer, check_alike
from palam.inference.scoring import LabelScorer
from palam.models.configuration import PalamConfig

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


def config(name, labels, text="{text}", **task):
    pairs = [[label, words] for label, words in labels.items()]
    made = PalamConfig(task={"name": "a", "family": "a", "labels": pairs, "text": text, **task})
    made.name_or_path = name
    return made


def test_bridges_of_other_labels_need_labels_that_are_given():
    good = config("one", {"a": "good", "b": "bad"})
    other_order = config("two", {"b": "bad", "a": "good"})
    stars = config("three", {"1": "one", "2": "two"})
    check_alike([good, other_order])
    line = refusal(check_alike, [good, other_order, stars])
    assert line.startswith("three has the labels 1, 2, and one a, b; ")
    check_alike([good, stars], same_labels=False)


def test_bridges_must_read_the_same_of_a_row():
    labels = {"a": "good", "b": "bad"}
    plain = config("one", labels)
    paper = config("two", labels, text="Review: {text} Label: ")
    review = config("three", labels, columns={"text": "review", "label": "stars"})
    assert "must read the same" in refusal(check_alike, [plain, paper])
    assert "must read the same" in refusal(check_alike, [plain, review], same_labels=False)
    check_alike([review, config("four", labels, columns={"text": "review", "label": "kind"})])
