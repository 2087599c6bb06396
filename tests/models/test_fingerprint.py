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


def refusal(expected, found):
    with pytest.raises(PalamError) as caught:
        check_fingerprint("LLM", expected, found, "some/llm")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.LLMS])
def test_equal_in_fp32_and_bf16(base_folder, family):
    load = load_llm if family in tiny.LLMS else load_encoder
    found = of(base_folder(family), load)
    assert found == of(base_folder(family), load, dtype=torch.bfloat16)
    assert json.loads(json.dumps(found)) == found
    check_fingerprint("LLM", found, found, "x")


def test_is_of_sizes_vocabulary_and_64_rows(base_folder):
    folder = base_folder("llama")
    found = of(folder)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    picked = torch.stack([table[i * len(table) // 64] for i in range(64)]).bfloat16()
    assert (
        found["embeddings"]
        == hashlib.sha256(picked.view(torch.int16).numpy().tobytes()).hexdigest()
    )
    assert found["shapes"] == {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": len(table)}
    pairs = sorted(
        AutoTokenizer.from_pretrained(folder).get_vocab().items(), key=lambda pair: pair[1]
    )
    assert (
        found["vocabulary"]
        == hashlib.sha256(json.dumps([list(p) for p in pairs]).encode()).hexdigest()
    )


def test_the_refusal_names_what_differs(base_folder):
    found = of(base_folder("llama"))
    assert "some/llm is not the LLM" in refusal(found, of(base_folder("llama", seed=1)))
    assert "(other weights)" in refusal(found, of(base_folder("llama", seed=1)))
    assert "(num_hidden_layers is 3, not 2" in refusal(
        found, of(base_folder("llama", num_hidden_layers=3))
    )
    assert "hidden_size is 16, not 32" in refusal(found, of(base_folder("llama", hidden_size=16)))
    assert "another vocabulary" in refusal(found, of(base_folder("qwen")))
    renamed = AutoTokenizer.from_pretrained(base_folder("llama"))
    renamed.add_tokens(["one more"])
    only_words = fingerprint(load_llm(str(base_folder("llama"))), renamed)
    assert "(another vocabulary)" in refusal(found, only_words)


def test_one_embedding_row_is_enough(base_folder):
    model = load_llm(str(base_folder("llama")))
    before = fingerprint(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 5] += 1
    assert "(other weights)" in refusal(before, fingerprint(model))


def test_what_was_not_recorded_is_not_compared(base_folder):
    found = of(base_folder("llama"))
    check_fingerprint("LLM", None, found, "x")
    check_fingerprint("LLM", {}, found, "x")
    check_fingerprint("LLM", found | {"vocabulary": None}, found, "x")
    more = found["shapes"] | {
        "d_model": 32
    }  # another release of transformers knows the width by another name too
    check_fingerprint("LLM", found | {"shapes": more}, found, "x")
    check_fingerprint("LLM", found, found | {"shapes": more}, "x")
