"""Guidance: answers moved away from what the LLM would say without the text."""

import itertools
import math

import pytest
import torch
import transformers as tf
from helpers import TEXTS, CollectingStreamer, pairs, prompts, refusal

from palam.models.guidance import LEAST_PLAUSIBLE
from palam.models.processing import TEXT_SLOT

PROMPT = {"mode": "prompt", "prompt": "Read: {text}\nTopic:"}
GREEDY = {"max_new_tokens": 6, "do_sample": False}


def guided_by_hand(model, row, steps, scale):
    """Token by token: a whole pass with the text and one without, compared as published."""
    batch = prompts(model, row)
    around = batch["input_ids"][batch["input_ids"] != TEXT_SLOT][None]
    said = []
    for _ in range(steps):
        answer = torch.tensor([said], dtype=torch.long)
        with_text = model(
            encoder_input_ids=batch["encoder_input_ids"],
            encoder_attention_mask=batch["encoder_attention_mask"],
            input_ids=torch.cat([batch["input_ids"], answer], 1),
        )
        without_text = model.llm(input_ids=torch.cat([around, answer], 1))
        p = with_text.logits[0, -1].double().softmax(-1)
        q = without_text.logits[0, -1].double().softmax(-1)
        score = q.log() + scale * (p.log() - q.log())
        score[p < LEAST_PLAUSIBLE * p.max()] = -math.inf
        said.append(int(score.argmax()))
        if said[-1] in model.stop_ids():
            break
    return said


@pairs
@torch.no_grad()
def test_guided_answers_are_those_of_the_formula_whatever_the_batch(
    tiny_model, base_folder, encoder, llm, options
):
    # A random model with a tied head only repeats its last token.
    options = {**options, **PROMPT}
    model = tiny_model(encoder, base_folder(llm, tie_word_embeddings=False), **options)
    plain = model.generate(**prompts(model), **GREEDY)
    guided = model.generate(**prompts(model), **GREEDY, guidance_scale=3.0)
    for row in range(len(TEXTS)):
        by_hand = guided_by_hand(model, row, 6, 3.0)
        assert guided[row, : len(by_hand)].tolist() == by_hand
        single = model.generate(**prompts(model, row), **GREEDY, guidance_scale=3.0)
        assert single[0].tolist() == by_hand
    assert plain.tolist() != guided.tolist()


def test_a_scale_of_one_changes_nothing(tiny_model):
    model = tiny_model(**PROMPT)
    plain = model.generate(**prompts(model), **GREEDY)
    assert torch.equal(model.generate(**prompts(model), **GREEDY, guidance_scale=1), plain)
    assert torch.equal(model.generate(**prompts(model), **GREEDY, guidance_scale=None), plain)


def test_a_guided_answer_is_streamed(tiny_model):
    model = tiny_model(**PROMPT)
    streamer = CollectingStreamer()
    options = {**GREEDY, "guidance_scale": 3.0}
    (ids,) = model.generate(**prompts(model, 0), **options, streamer=streamer).tolist()
    assert streamer.ids == ids
    assert streamer.ended


def test_guided_answers_are_greedy_whatever_the_llms_settings_are(tiny_model):
    model = tiny_model(**PROMPT)
    expected = model.generate(**prompts(model), **GREEDY, guidance_scale=3.0)
    for name, value in {"do_sample": True, "temperature": 9.0, "num_beams": 3}.items():
        setattr(model.llm.generation_config, name, value)
    guided = model.generate(**prompts(model), max_new_tokens=6, guidance_scale=3.0)
    assert torch.equal(guided, expected)


def test_what_may_not_be_said_is_not_said_by_guided_answers(tiny_model):
    model = tiny_model(**PROMPT)
    (said,) = model.generate(
        **prompts(model, 0),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        no_repeat_ngram_size=2,
        guidance_scale=1.5,
    ).tolist()
    said_pairs = list(itertools.pairwise(said))
    assert len(said) == 30
    assert len(set(said_pairs)) == len(said_pairs)


@pytest.mark.parametrize("scale", [0.5, -1.0, 101.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(tiny_model, scale):
    model = tiny_model(**PROMPT)
    line = refusal(model.generate, **prompts(model), **GREEDY, guidance_scale=scale)
    assert line == f"the guidance scale is {scale}; it must be from 1 (none) to 100"


def test_guidance_without_a_meaning_is_refused(tiny_model):
    model = tiny_model(**PROMPT)
    for option in (
        {"num_beams": 2},
        {"do_sample": True},
        {"return_dict_in_generate": True},
        {"generation_config": tf.GenerationConfig(max_new_tokens=3)},
    ):
        line = refusal(model.generate, **prompts(model), **option, guidance_scale=1.5)
        (name,) = option
        assert line == f"guided answers are greedy ids alone; leave {name} out"
    read_by_llm = dict(model.processor(TEXTS[:1], llm_only=True))
    line = refusal(model.generate, **read_by_llm, **GREEDY, guidance_scale=1.5)
    assert line == "guidance needs texts that are read through the bridge"


def test_without_a_prompt_what_is_compared_with_is_the_llms_first_token(tiny_model):
    model = tiny_model(mode="paper")
    batch = prompts(model)
    assert batch["input_ids"].shape[1] == 2  # BOS and the text's slot
    assert len(model.generate(**batch, **GREEDY, guidance_scale=1.5)) == len(TEXTS)
    texts = {name: batch[name] for name in ("encoder_input_ids", "encoder_attention_mask")}
    line = refusal(model.generate, **texts, **GREEDY, guidance_scale=1.5)
    assert line.endswith("there is no prompt; give one, or leave the guidance scale out")
