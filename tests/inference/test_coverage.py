"""The best of several answers: the one that says most of its text for the encoder."""

import pytest
import torch
from helpers import TEXTS, refusal

from palam.inference.coverage import best_answers, coverage
from palam.inference.encoder_states import encoder_features, encoder_states
from palam.inference.generation import generate, generate_about, generate_ids

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


def test_generate_gives_the_best_of_the_answers_that_are_made(tiny_model, base_folder):
    model = tiny_model("bert", base_folder("llama", tie_word_embeddings=False), **PROMPT)
    options = {"max_new_tokens": 6, "guidance_scale": 2.0}
    expected = []
    for text in TEXTS:
        ids = model.generate(**model.processor([text]), **options, answers_per_text=5)
        answers = model.processor.decode(ids)
        scores = [covered_by_hand(model, text, answer) for answer in answers]
        expected.append(answers[scores.index(max(scores))])
    assert generate(model, TEXTS, **options, best_of=5) == expected
    assert generate(model, TEXTS, **options, best_of=5, batch_size=1) == expected
    templates = [model.processor.template] * len(TEXTS)
    assert generate_about(model, TEXTS, templates, **options, best_of=5) == expected
    ids = generate_ids(model, TEXTS, **options, best_of=5)
    assert [model.processor.decode([row])[0] for row in ids] == expected
    assert generate(model, TEXTS, **options) != expected


def test_where_the_encoder_cannot_judge_it_is_refused(tiny_model):
    model = tiny_model(**PROMPT)
    line = refusal(generate, model, TEXTS, llm_only=True, best_of=2)
    assert line == "the best of several answers needs texts that the encoder reads"
    for number in (0, 65):
        assert "from 1 to 64" in refusal(generate, model, TEXTS, best_of=number)
    model.token_engine = object()
    line = refusal(generate, model, TEXTS, best_of=2)
    assert line == "this engine gives one answer to a text; leave best_of out"
