"""Generating: what transformers' own generate does, after text that came through the bridge."""

import itertools
from dataclasses import replace

import pytest
import tiny
import torch
import transformers as tf
from helpers import TEXTS, CollectingStreamer, pairs, prompts, refusal
from transformers.modeling_layers import GradientCheckpointingLayer


def greedy(model, row, steps):
    """Token by token, each from a whole forward pass."""
    batch = prompts(model, row)
    ids = []
    for _ in range(steps):
        llm_ids = torch.cat([batch["input_ids"], torch.tensor([ids], dtype=torch.long)], 1)
        output = model(
            encoder_input_ids=batch["encoder_input_ids"],
            encoder_attention_mask=batch["encoder_attention_mask"],
            input_ids=llm_ids,
        )
        ids.append(int(output.logits[0, -1].argmax()))
    return ids


@pairs
@torch.no_grad()
def test_generating_is_greedy_and_padding_makes_no_difference(
    tiny_model, base_folder, encoder, llm, options
):
    # A random model with a tied head only repeats its last token.
    model = tiny_model(encoder, base_folder(llm, tie_word_embeddings=False), **options)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    generated = model.generate(**prompts(model), **options)
    assert generated.shape == (len(TEXTS), 6)
    eos = model.processor.llm_tokenizer.eos_token_id
    for row in range(len(TEXTS)):
        single = model.generate(**prompts(model, row), **options)
        assert torch.equal(single[0], generated[row])
        by_hand = greedy(model, row, 6)
        stop = by_hand.index(eos) if eos in by_hand else 6
        assert by_hand[:stop] == generated[row, :stop].tolist()
        assert stop > 0
    assert len({tuple(row.tolist()) for row in generated}) > 1


@pytest.mark.parametrize("llm", tiny.LLMS)
def test_generating_while_training_is_the_same(tiny_model, llm):
    model = tiny_model("bert", llm, fusion="transformer_softmax", dropout=0.5)
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(**prompts(model), **options)
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.equal(model.generate(**prompts(model), **options), expected)
    layers = [m for m in model.llm.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert sum(layer.training for layer in layers) == 2  # as it was before
    assert model.training


def test_generating_uses_the_cache(tiny_model):
    model = tiny_model()
    model.gradient_checkpointing_enable()
    model.train()
    layer = next(m for m in model.llm.modules() if isinstance(m, GradientCheckpointingLayer))
    lengths = []
    layer.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    model.generate(**prompts(model), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert lengths[0] > 1
    assert lengths[1:] == [1, 1, 1]


def test_generating_takes_the_librarys_arguments(tiny_model):
    model = tiny_model()
    prompt = prompts(model, 0)

    streamer = CollectingStreamer()
    ids = model.generate(**prompt, max_new_tokens=5, do_sample=False, streamer=streamer)
    assert streamer.ids == ids[0].tolist()
    assert streamer.ended
    beams = model.generate(
        **prompts(model), max_new_tokens=5, num_beams=3, num_return_sequences=2, do_sample=False
    )
    assert beams.shape[0] == 2 * len(TEXTS)
    config = tf.GenerationConfig(max_new_tokens=3, do_sample=False, eos_token_id=1, pad_token_id=0)
    assert model.generate(**prompt, generation_config=config).tolist() == ids[:, :3].tolist()
    (varied,) = model.generate(
        **prompt, max_new_tokens=30, do_sample=False, eos_token_id=None, no_repeat_ngram_size=2
    ).tolist()
    pairs = list(itertools.pairwise(varied))
    assert len(set(pairs)) == len(pairs)
    output = model.generate(
        **prompt, max_new_tokens=2, return_dict_in_generate=True, output_scores=True
    )
    assert len(output.scores) == output.sequences.shape[1]


def test_generating_stops_at_the_eos_that_answers_end_with(tiny_model):
    model = tiny_model()
    prompt = prompts(model, 0)
    free = model.generate(**prompt, max_new_tokens=6, do_sample=False)[0].tolist()
    place = next(i for i, token in enumerate(free) if token not in free[:i] and i > 0)
    tokenizer = model.processor.llm_tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free[place])
    assert model.llm.generation_config.eos_token_id not in (None, free[place])
    stopped = model.generate(**prompt, max_new_tokens=6, do_sample=False)
    assert stopped[0].tolist() == free[: place + 1]
    chosen = model.generate(**prompt, max_new_tokens=6, do_sample=False, eos_token_id=free[0])
    assert chosen[0].tolist() == free[:1]


def test_generating_stops_at_the_end_of_the_turn(tiny_model):
    model = tiny_model(llm="llama", mode="chat", prompt="Read: {text}")
    tokenizer = model.processor.llm_tokenizer
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.processor.end_ids() == [end] != [tokenizer.eos_token_id]
    assert {end, tokenizer.eos_token_id} <= set(model.stop_ids())
    prompt = prompts(model, 0)
    free = model.generate(**prompt, max_new_tokens=6, do_sample=False, eos_token_id=[])[0].tolist()
    place = next(i for i, token in enumerate(free) if token not in free[:i] and i > 0)
    stop = tokenizer.convert_ids_to_tokens(free[place])
    model.processor.template = replace(model.processor.template, answer_end=stop)
    if model.processor.end_ids() == [free[place]]:
        stopped = model.generate(**prompt, max_new_tokens=6, do_sample=False)
        assert stopped[0].tolist() == free[: place + 1]


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(60, 400))},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 9.0},
    ],
)
def test_greedy_is_greedy_whatever_the_llms_settings_are(tiny_model, setting):
    model = tiny_model()
    options = {"max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**prompts(model), **options)
    for name, value in setting.items():
        setattr(model.llm.generation_config, name, value)
    assert torch.equal(model.generate(**prompts(model), **options), expected)
    if "repetition_penalty" in setting:  # what is asked for is done
        changed = model.generate(**prompts(model), **options, **setting)
        assert not torch.equal(changed, expected)


# ------------------------------------------------------------------ classes without vectors
@pytest.fixture(scope="module")
def first_gpt(tmp_path_factory):
    """OpenAI's first GPT, whose class generates from ids alone; it has 128 positions."""
    options = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    tokenizer = tiny.kind_of_tokenizer("merging")
    architecture = tiny.Architecture(
        tokenizer, "OpenAIGPT", "OpenAIGPTLMHeadModel", {**options, "initializer_range": 0.3}
    )
    torch.manual_seed(0)
    return tiny.build(tmp_path_factory.mktemp("gpt"), architecture, {})


def test_a_class_that_takes_no_vectors_generates_greedily(tiny_model, first_gpt):
    model = tiny_model("bert", first_gpt, mode="prompt", prompt="Read: {text}\nTopic:")
    ids = model.generate(**prompts(model), max_new_tokens=4, do_sample=False)
    for row in range(len(TEXTS)):
        by_hand = greedy(model, row, 4)
        eos = [i for i, token in enumerate(by_hand) if token in model.stop_ids()]
        stop = eos[0] + 1 if eos else 4
        assert ids[row, :stop].tolist() == by_hand[:stop]
    stopping = model.generate(**prompts(model, 0), max_new_tokens=4, eos_token_id=int(ids[0, 0]))
    assert stopping.tolist() == [[int(ids[0, 0])]]
    line = refusal(model.generate, **prompts(model, 0), max_new_tokens=4, do_sample=True)
    assert line == "this LLM's class generates greedily alone; do_sample cannot be used"
    assert "num_beams cannot" in refusal(model.generate, **prompts(model, 0), num_beams=3)


# ------------------------------------------------------------------ a table of positions
LONG = "The quick brown fox jumps over the lazy dog. " * 60


@pytest.mark.parametrize("llm", ["gpt2", "opt"])
@torch.no_grad()
def test_a_text_longer_than_the_llms_positions_is_cut_and_counted(tiny_model, llm):
    model = tiny_model(llm=llm, mode="prompt", prompt="Read: {text}\nTopic:")
    assert model.processor.llm_positions == 256
    batch = model.processor([LONG, "short"], ["sports", "a"], llm_only=True)
    assert 150 < batch["input_ids"].shape[1] <= 256
    assert model(**batch).loss.isfinite()
    model.generate(**model.processor(LONG, llm_only=True), max_new_tokens=60, do_sample=False)
    assert model.processor.llm_stats[""].cut == 2
    assert "2 of 3 cut at" in model.processor.text_report()[-1]


def test_what_no_cut_of_the_text_can_help_is_refused(tiny_model):
    prompt = LONG + "{text}"
    model = tiny_model(llm="gpt2", mode="prompt", prompt=prompt)
    line = refusal(model, **model.processor(["x"], ["a"]))
    assert "the LLM has 256 positions, and text, prompt and answer take" in line
    short = tiny_model(llm="gpt2")
    assert "256 positions" in refusal(short.generate, **prompts(short, 0), max_new_tokens=300)
    rotary = tiny_model(llm="llama")
    assert rotary.processor.llm_positions is None
