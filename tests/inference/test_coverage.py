"""Coverage: how much of a text an answer says, for the encoder."""

import pytest
import torch
from helpers import TEXTS

from palam.inference import coverage as coverage_module
from palam.inference.coverage import best_answers, coverage
from palam.inference.encoder_states import encoder_features, encoder_states

PROMPT = {"mode": "prompt", "prompt": "Read: {text}\nTopic:"}
ANSWERS = ["bridge over water", "a house", "", TEXTS[1]]


def covered_by_hand(model, text, answer):
    """Token by token and layer by layer, each read alone."""
    read = []
    for words in (text, answer):
        ids = torch.tensor([model.processor.encode_texts([words])[0]["input_ids"]])
        read.append(model.encode(ids, torch.ones_like(ids)))
    total = 0.0
    for of_text, of_answer in zip(*read, strict=True):
        nearest = []
        for state in of_text.double():
            cosines = [float(torch.cosine_similarity(state, b, dim=0)) for b in of_answer.double()]
            nearest.append(max(cosines))
        total += sum(nearest) / len(nearest)
    return total / len(read[0])


@torch.no_grad()
def test_coverage_is_the_mean_of_the_nearest_cosines(tiny_model):
    model = tiny_model(**PROMPT)
    for answer in ANSWERS:
        texts = [TEXTS[0], answer]
        states = dict(encoder_states(model, encoder_features(model, texts, None)))
        expected = covered_by_hand(model, TEXTS[0], answer)
        assert coverage(states[0], states[1]) == pytest.approx(expected, abs=1e-5)


def test_a_text_covers_itself_and_nothing_covers_no_tokens():
    states = [torch.randn(4, 8), torch.randn(4, 8)]
    nothing = [torch.zeros(0, 8), torch.zeros(0, 8)]
    assert coverage(states, states) == pytest.approx(1.0)
    assert coverage(states, nothing) == 0
    assert coverage(nothing, states) == 0


def test_the_answer_that_says_most_is_chosen_and_of_equals_the_first(tiny_model):
    model = tiny_model(**PROMPT)
    features = encoder_features(model, TEXTS[:2], None)
    answers = [["", TEXTS[0], TEXTS[0]], [TEXTS[1], "", TEXTS[1]]]
    assert best_answers(model, features, answers) == [1, 0]
    assert best_answers(model, features, answers, batch_size=1) == [1, 0]


def test_an_answer_without_a_word_is_chosen_only_where_all_are(tiny_model, monkeypatch):
    model = tiny_model(**PROMPT)
    features = encoder_features(model, TEXTS[:2], None)
    monkeypatch.setattr(coverage_module, "coverage", lambda text, answer: -0.5)
    assert best_answers(model, features, [["", " ...", "a"], ["", " "]]) == [2, 0]


def test_states_are_had_in_evaluation_and_what_reads_them_is_not_held_in_it(tiny_model):
    model = tiny_model(**PROMPT)
    model.train()
    states = encoder_states(model, encoder_features(model, TEXTS, None))
    next(states)
    assert model.training
    assert torch.is_grad_enabled()
