"""A fingerprint is the same for the same model however it is loaded, and another for any other."""

import hashlib
import json

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from palam.errors import PalamError
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.fingerprint import check_fingerprint, fingerprint


def of(folder, load=load_llm, **options):
    return fingerprint(load(str(folder), **options), AutoTokenizer.from_pretrained(folder))


def refusal(expected, recorded):
    with pytest.raises(PalamError) as caught:
        check_fingerprint("LLM", expected, recorded, "some/llm")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.LLMS])
def test_equal_in_fp32_and_bf16(base_folder, family):
    load = load_llm if family in tiny.LLMS else load_encoder
    recorded = of(base_folder(family), load)
    assert recorded.pop("embeddings_of_half")  # of fp32 alone
    assert recorded == of(base_folder(family), load, dtype=torch.bfloat16)
    assert json.loads(json.dumps(recorded)) == recorded
    check_fingerprint("LLM", recorded, recorded, "x")


def test_is_of_sizes_vocabulary_and_64_rows(base_folder):
    folder = base_folder("llama")
    recorded = of(folder)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    picked = torch.stack([table[i * len(table) // 64] for i in range(64)]).bfloat16()
    digest = hashlib.sha256(picked.view(torch.int16).numpy().tobytes()).hexdigest()
    assert recorded["embeddings"] == digest
    assert recorded["shapes"] == {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": len(table),
    }
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    pairs = sorted(vocabulary.items(), key=lambda pair: pair[1])
    text = json.dumps([list(pair) for pair in pairs])
    assert recorded["vocabulary"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_refusal_names_what_differs(base_folder):
    recorded = of(base_folder("llama"))
    assert "some/llm is not the LLM" in refusal(recorded, of(base_folder("llama", seed=1)))
    assert "(other weights)" in refusal(recorded, of(base_folder("llama", seed=1)))
    deeper = of(base_folder("llama", num_hidden_layers=3))
    assert "(num_hidden_layers is 3, not 2" in refusal(recorded, deeper)
    narrower = of(base_folder("llama", hidden_size=16))
    assert "hidden_size is 16, not 32" in refusal(recorded, narrower)
    assert "another vocabulary" in refusal(recorded, of(base_folder("qwen")))
    renamed = AutoTokenizer.from_pretrained(base_folder("llama"))
    renamed.add_tokens(["one more"])
    only_words = fingerprint(load_llm(str(base_folder("llama"))), renamed)
    assert "(another vocabulary)" in refusal(recorded, only_words)


def test_one_embedding_row_is_enough(base_folder):
    model = load_llm(str(base_folder("llama")))
    before = fingerprint(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 5] += 1
    assert "(other weights)" in refusal(before, fingerprint(model))


def test_what_was_not_recorded_is_not_compared(base_folder):
    recorded = of(base_folder("llama"))
    check_fingerprint("LLM", None, recorded, "x")
    check_fingerprint("LLM", {}, recorded, "x")
    check_fingerprint("LLM", recorded | {"vocabulary": None}, recorded, "x")
    # Another release of transformers knows the width by another name too.
    more = {**recorded["shapes"], "d_model": 32}
    check_fingerprint("LLM", recorded | {"shapes": more}, recorded, "x")
    check_fingerprint("LLM", recorded, recorded | {"shapes": more}, "x")
    check_fingerprint("LLM", recorded, None, "x")


# ------------------------------------------------------------------ every dtype
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def without_sample(recorded):
    """As it was recorded before there was one."""
    return {name: recorded[name] for name in ("shapes", "vocabulary", "embeddings")}


@pytest.mark.parametrize("family", ["bert", "t5", "llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trained_in", DTYPES)
def test_the_same_weights_are_the_same_in_every_dtype(base_folder, family, trained_in, dtype):
    load = load_llm if family in tiny.LLMS else load_encoder
    recorded = of(base_folder(family), load, dtype=trained_in)
    actual = of(base_folder(family), load, dtype=dtype)
    check_fingerprint("LLM", recorded, actual, "x")
    if (trained_in, dtype) != (torch.float16, torch.bfloat16):  # two roundings, neither known
        check_fingerprint("LLM", without_sample(recorded), actual, "x")
    other = of(base_folder(family, seed=1), load, dtype=dtype)
    assert "(other weights)" in refusal(recorded, other)


def test_small_weights_are_the_same_in_fp16(base_folder):
    model = load_llm(str(base_folder("llama")))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1e-3)
        model.get_input_embeddings().weight[0].mul_(1e-3)
    recorded = fingerprint(model)
    check_fingerprint("LLM", recorded, fingerprint(model.half()), "x")


def test_a_changed_row_is_seen_in_fp16_too(base_folder):
    recorded = of(base_folder("llama"))
    model = load_llm(str(base_folder("llama")), dtype=torch.float16)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 5] += 1
    tokenizer = AutoTokenizer.from_pretrained(base_folder("llama"))
    assert "(other weights)" in refusal(recorded, fingerprint(model, tokenizer))


def test_an_earlier_fingerprint_still_tells_other_weights(base_folder):
    earlier = without_sample(of(base_folder("llama")))
    check_fingerprint("LLM", earlier, of(base_folder("llama")), "x")
    assert "(other weights)" in refusal(earlier, of(base_folder("llama", seed=1)))
