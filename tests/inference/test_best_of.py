"""Several answers to each text: the first greedy, the others drawn, whatever stands beside them."""

import itertools
import math

import pytest
import torch
from helpers import TEXTS, pairs, refusal

from palam.inference import best_of as best_of_module
from palam.inference.best_of import (
    TEMPERATURE,
    UNDERSTOOD,
    SeveralAnswers,
    answer_noise,
    answers_to_each,
)
from palam.inference.contexts import CachedContext, RereadContext, suitable_context
from palam.inference.generation import generate, generate_about, generate_ids

PROMPT = {"mode": "prompt", "prompt": "Read: {text}\nTopic:"}
NUMBER = 5


def several(model, texts, context_class=None, **options):
    wanted = SeveralAnswers(**{"number": NUMBER, "max_new_tokens": 6, **options})
    context_class = context_class or suitable_context(model)
    return answers_to_each(model, model.processor(texts), wanted, context_class)


@pytest.fixture
def talkative(tiny_model, base_folder):
    """A bridge whose random LLM does not only repeat its last token, as one with a tied head."""
    return tiny_model("bert", base_folder("llama", tie_word_embeddings=False), **PROMPT)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pairs
def test_answers_are_the_same_whatever_the_batch_and_the_first_is_greedy(
    tiny_model, base_folder, encoder, llm, options, scale
):
    options = {**options, **PROMPT}
    model = tiny_model(encoder, base_folder(llm, tie_word_embeddings=False), **options)
    together = several(model, TEXTS, guidance_scale=scale)
    assert [len(of_text) for of_text in together] == [NUMBER] * len(TEXTS)
    assert [several(model, [text], guidance_scale=scale)[0] for text in TEXTS] == together
    greedy = generate_ids(model, TEXTS, max_new_tokens=6, guidance_scale=scale)
    assert [of_text[0] for of_text in together] == greedy
    assert any(answer != of_text[0] for of_text in together for answer in of_text)


def test_a_cache_gives_the_answers_of_reading_all_again(talkative):
    for scale in (1.0, 2.0):
        cached = several(talkative, TEXTS, CachedContext, guidance_scale=scale)
        assert several(talkative, TEXTS, RereadContext, guidance_scale=scale) == cached


def test_answers_end_where_the_llm_ends_them(talkative, monkeypatch):
    longest = several(talkative, TEXTS)
    ends = {answer[2] for of_text in longest for answer in of_text[::2]}
    monkeypatch.setattr(talkative, "stop_ids", lambda: sorted(ends))
    for of_text, before in zip(several(talkative, TEXTS), longest, strict=True):
        for answer, longer in zip(of_text, before, strict=True):
            assert answer == list(itertools.takewhile(lambda token: token not in ends, longer))


def test_answers_are_drawn_from_the_scores_at_the_temperature():
    logits = torch.tensor([2.0, 1.0, 0.5, -math.inf])
    number = 4001
    answers = (logits + answer_noise(0, number, 4)).argmax(-1)
    shares = answers[1:].bincount(minlength=4) / (number - 1)
    assert answers[0] == 0
    torch.testing.assert_close(shares, (logits / TEMPERATURE).softmax(-1), atol=0.02, rtol=0)
    assert shares[3] == 0


def test_fewer_answers_are_the_first_of_more(talkative):
    more = several(talkative, TEXTS)
    assert several(talkative, TEXTS, number=3) == [of_text[:3] for of_text in more]
    noise = answer_noise(2, 24, 50_000)
    assert torch.equal(answer_noise(2, 8, 50_000), noise[:8])


def test_what_is_drawn_differs_from_place_to_place():
    draws = [answer_noise(place, 20, 50).argmax(-1) for place in (0, 1)]
    assert not torch.equal(*draws)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_what_may_not_be_said_is_not_said_by_any_answer(tiny_model, monkeypatch, scale):
    model = tiny_model(**PROMPT)
    monkeypatch.setattr(model, "stop_ids", lambda: [])
    options = {"max_new_tokens": 30, "no_repeat_ngram_size": 2, "guidance_scale": scale}
    ([*answers],) = several(model, TEXTS[:1], **options)
    for said in answers:
        said_pairs = list(itertools.pairwise(said))
        assert len(said) == 30
        assert len(set(said_pairs)) == len(said_pairs)


# ---------------------------------------------------------------------- the best of them
def test_generate_gives_the_best_of_the_answers_that_are_made(talkative):
    options = {"max_new_tokens": 6, "guidance_scale": 2.0}
    best = generate(talkative, TEXTS, **options, best_of=NUMBER)
    made = [
        [talkative.processor.decode([ids])[0] for ids in of_text]
        for of_text in several(talkative, TEXTS, guidance_scale=2.0)
    ]
    assert all(answer in answers for answer, answers in zip(best, made, strict=True))
    assert best != generate(talkative, TEXTS, **options)
    assert generate(talkative, TEXTS, **options, best_of=NUMBER, batch_size=1) == best
    templates = [talkative.processor.template] * len(TEXTS)
    assert generate_about(talkative, TEXTS, templates, **options, best_of=NUMBER) == best
    ids = generate_ids(talkative, TEXTS, **options, best_of=NUMBER)
    assert [talkative.processor.decode([answer])[0] for answer in ids] == best


@pytest.mark.parametrize("first_line_only", [False, True])
def test_the_encoder_judges_what_is_kept_of_an_answer(talkative, monkeypatch, first_line_only):
    judged = []

    def choose(model, features, answers, *, batch_size):
        judged.extend(answer for of_text in answers for answer in of_text)
        return [0] * len(answers)

    monkeypatch.setattr(best_of_module, "best_answers", choose)
    monkeypatch.setattr(talkative.processor, "decode", lambda ids: ["Yes.\nThe river Nile."])
    generate(talkative, TEXTS[:1], best_of=2, first_line_only=first_line_only)
    assert judged == ["Yes." if first_line_only else "Yes.\nThe river Nile."] * 2


def test_one_answer_to_a_text_is_the_usual_one(talkative):
    plain = generate(talkative, TEXTS, max_new_tokens=6)
    assert generate(talkative, TEXTS, max_new_tokens=6, best_of=1) == plain


# ---------------------------------------------------------------------- what cannot be
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_of": -1}, "best_of is -1; it must be from 1 to 64"),
        ({"best_of": 0}, "best_of is 0; it must be from 1 to 64"),
        ({"best_of": 65}, "best_of is 65; it must be from 1 to 64"),
        ({"best_of": 2.5}, "best_of is 2.5; it must be a whole number"),
        ({"best_of": None}, "best_of is None; it must be a whole number"),
        (
            {"best_of": 2, "max_new_tokens": 0},
            "max_new_tokens is 0; it must be a whole number from 1 on",
        ),
        (
            {"best_of": 2, "no_repeat_ngram_size": -1},
            "no_repeat_ngram_size is -1; it must be a whole number from 0 on",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(tiny_model, options, message):
    assert refusal(generate, tiny_model(**PROMPT), TEXTS, **options) == message


def test_options_that_several_answers_cannot_have_are_refused(tiny_model):
    model = tiny_model(**PROMPT)
    for name, value in {"num_beams": 2, "do_sample": True, "streamer": object()}.items():
        line = refusal(generate, model, TEXTS, best_of=2, **{name: value})
        assert line == f"with best_of there are {', '.join(UNDERSTOOD)}; leave {name} out"
    line = refusal(generate, model, TEXTS, best_of=2, guidance_scale=0.5)
    assert line.startswith("the guidance scale is 0.5")


def test_where_the_encoder_cannot_judge_it_is_refused(tiny_model):
    model = tiny_model(**PROMPT)
    line = refusal(generate, model, TEXTS, llm_only=True, best_of=2)
    assert line == "the best of several answers needs texts that the encoder reads"
    model.token_engine = object()
    line = refusal(generate, model, TEXTS, best_of=2)
    assert line == "this engine gives one answer to a text; leave best_of out"
    model.token_engine = None
    model.shards_llm = True
    line = refusal(generate, model, TEXTS, best_of=2)
    assert line == "an LLM in several processes gives one answer to a text; leave best_of out"


def test_an_answer_that_may_not_fit_is_refused(tiny_model):
    model = tiny_model("bert", "gpt2", **PROMPT)
    most = model.processor.llm_positions
    line = refusal(generate, model, TEXTS, best_of=2, max_new_tokens=most)
    assert line.startswith(f"the LLM has {most} positions")


@torch.no_grad()
def test_logits_that_are_not_finite_are_refused(tiny_model):
    model = tiny_model(**PROMPT)
    model.llm.get_output_embeddings().weight.fill_(math.nan)
    assert "not finite" in refusal(generate, model, TEXTS, best_of=2)
