"""Several answers to each text: the first greedy, the others drawn, whatever stands beside them."""

import itertools
import math

import pytest
import torch
import transformers as tf
from helpers import TEXTS, CollectingStreamer, pairs, prompts, refusal

from palam.models import best_of
from palam.models.best_of import ANSWER_TEMPERATURE, VariedAnswers

PROMPT = {"mode": "prompt", "prompt": "Read: {text}\nTopic:"}
GREEDY = {"max_new_tokens": 6, "do_sample": False}
NUMBER = 5


def until_the_end(model, ids):
    """The ids of one answer without what follows its end."""
    stops = set(model.stop_ids())
    return list(itertools.takewhile(lambda token: token not in stops, ids.tolist()))


@pytest.mark.parametrize("scale", [None, 3.0])
@pairs
def test_answers_are_the_same_whatever_the_batch_and_the_first_is_greedy(
    tiny_model, base_folder, encoder, llm, options, scale
):
    # A random model with a tied head only repeats its last token.
    options = {**options, **PROMPT}
    model = tiny_model(encoder, base_folder(llm, tie_word_embeddings=False), **options)
    decoding = {**GREEDY, "guidance_scale": scale}
    greedy = model.generate(**prompts(model), **decoding)
    several = model.generate(**prompts(model), **decoding, answers_per_text=NUMBER)
    assert len(several) == NUMBER * len(TEXTS)
    drawn_alike = []
    for row in range(len(TEXTS)):
        of_text = several[row * NUMBER : (row + 1) * NUMBER]
        single = model.generate(**prompts(model, row), **decoding, answers_per_text=NUMBER)
        alone = [until_the_end(model, ids) for ids in single]
        assert [until_the_end(model, ids) for ids in of_text] == alone
        assert alone[0] == until_the_end(model, greedy[row])
        drawn_alike.append(alone[1:] == alone[:1] * (NUMBER - 1))
    assert not all(drawn_alike)


def test_a_cache_that_is_read_once_gives_the_answers_of_one_read_for_each(
    tiny_model, base_folder, monkeypatch
):
    model = tiny_model("bert", base_folder("llama", tie_word_embeddings=False), **PROMPT)
    decoding = {**GREEDY, "guidance_scale": 2.0, "answers_per_text": NUMBER}
    read_once = model.generate(**prompts(model), **decoding)
    monkeypatch.setattr(best_of, "repeated_cache", lambda *arguments: None)
    assert torch.equal(model.generate(**prompts(model), **decoding), read_once)


def test_answers_are_drawn_from_the_scores_at_the_temperature():
    logits = torch.tensor([2.0, 1.0, 0.5, -math.inf])
    number = 4001
    answers = VariedAnswers(number)(torch.zeros(number, 3), logits.repeat(number, 1)).argmax(-1)
    shares = answers[1:].bincount(minlength=4) / (number - 1)
    assert answers[0] == 0
    torch.testing.assert_close(shares, (logits / ANSWER_TEMPERATURE).softmax(-1), atol=0.02, rtol=0)
    assert shares[3] == 0


def test_what_is_drawn_differs_from_place_to_place():
    scores = torch.zeros(20, 50)
    draws = [VariedAnswers(20)(torch.zeros(20, place), scores).argmax(-1) for place in (0, 1)]
    assert not torch.equal(*draws)


def test_what_may_not_be_said_is_not_said_by_any_answer(tiny_model):
    model = tiny_model(**PROMPT)
    answers = model.generate(
        **prompts(model, 0),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        no_repeat_ngram_size=2,
        answers_per_text=3,
    ).tolist()
    for said in answers:
        said_pairs = list(itertools.pairwise(said))
        assert len(set(said_pairs)) == len(said_pairs)


@pytest.mark.parametrize("number", [-1, 0, 65])
def test_a_number_that_cannot_be_made_is_refused(tiny_model, number):
    model = tiny_model(**PROMPT)
    line = refusal(model.generate, **prompts(model), **GREEDY, answers_per_text=number)
    assert line == f"best_of is {number}; it must be from 1 to 64"


def test_options_that_several_answers_cannot_have_are_refused(tiny_model):
    model = tiny_model(**PROMPT)
    for option in (
        {"num_beams": 2},
        {"do_sample": True},
        {"streamer": CollectingStreamer()},
        {"return_dict_in_generate": True},
        {"generation_config": tf.GenerationConfig(max_new_tokens=3)},
    ):
        line = refusal(model.generate, **prompts(model), **option, answers_per_text=2)
        (name,) = option
        assert line == f"several answers to a text are ids alone; leave {name} out"


def test_one_answer_to_a_text_changes_nothing(tiny_model):
    model = tiny_model(**PROMPT)
    plain = model.generate(**prompts(model), **GREEDY)
    assert torch.equal(model.generate(**prompts(model), **GREEDY, answers_per_text=1), plain)
