"""The real starter models: what they hold and that they work."""

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, BertModel

from palam.starter.marker import origin
from palam.starter.resolve import resolve
from palam.starter.sources import SOURCES

pytestmark = pytest.mark.starter

PARALLEL = {
    "en": [
        "The children play in the river.",
        "The price of rice has risen.",
        "The doctor works at night.",
    ],
    "de": [
        "Die Kinder spielen im Fluss.",
        "Der Preis von Reis ist gestiegen.",
        "Der Arzt arbeitet nachts.",
    ],
    "hi": ["बच्चे नदी में खेलते हैं।", "चावल की कीमत बढ़ गई है।", "डॉक्टर रात में काम करता है।"],
    "sw": ["Watoto wanacheza mtoni.", "Bei ya mchele imepanda.", "Daktari anafanya kazi usiku."],
    "si": ["ළමයි ගඟේ සෙල්ලම් කරති.", "සහල් මිල ඉහළ ගොස් ඇත.", "වෛද්‍යවරයා රාත්‍රියේ වැඩ කරයි."],
}


@pytest.fixture(scope="module")
def encoder():
    path = resolve("starter:encoder")
    model, info = BertModel.from_pretrained(path, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    return AutoTokenizer.from_pretrained(path), model.eval()


@pytest.fixture(scope="module")
def llm():
    path = resolve("starter:llm")
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    return AutoTokenizer.from_pretrained(path), model.eval()


@pytest.mark.parametrize("name", list(SOURCES))
def test_folders_are_plain_local_models(name):
    path = Path(resolve(name))
    assert origin(path) == SOURCES[name].hub_id
    assert "quantization_config" not in json.loads((path / "config.json").read_text())


def test_encoder_states_are_finite_at_all_layers(encoder):
    tokenizer, model = encoder
    texts = list(chain.from_iterable(PARALLEL.values()))
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    assert len(states) == 13
    assert all(state.shape[-1] == 384 and state.isfinite().all() for state in states)


def test_encoder_puts_translations_together(encoder):
    tokenizer, model = encoder

    def embed(texts):
        batch = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        means = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(means, dim=-1)

    english = embed(PARALLEL["en"])
    for language in ("de", "hi", "sw", "si"):
        similarity = english @ embed(PARALLEL[language]).T
        assert similarity.argmax(1).tolist() == [0, 1, 2], language
        assert similarity.diag().min() > 0.8, language


def test_encoder_tokenizer_is_its_file(encoder):
    tokenizer, model = encoder
    folder = Path(resolve("starter:encoder"))
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(tokenizer) == 250_002
    assert model.get_input_embeddings().weight.shape == (250_037, 384)
    for text in ("ශ්‍රී ලංකාව", "naïve  two spaces", "ﬁ ½ Ａ", "\ttab\n", ""):
        assert tokenizer(text).input_ids == original.encode(text).ids
    assert tokenizer.model_max_length == 512


def test_llm_tokenizer_is_smollms(llm):
    tokenizer, _ = llm
    text = "Paid 12345,\n\n1. naïve — it's ශ්‍රී  2 x"
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded.input_ids) == text
    assert encoded.input_ids[0] not in tokenizer.all_special_ids
    for token, (start, end) in zip(encoded.tokens(), encoded.offset_mapping, strict=True):
        assert 0 <= start < end <= len(text)
        if text[start:end].isascii():
            assert token.replace("Ġ", " ").replace("Ċ", "\n") == text[start:end]
    # Digits are parted before all else: the blank line stays one token, and each digit is one.
    assert encoded.tokens()[:11] == ["P", "aid", "Ġ", "1", "2", "3", "4", "5", ",", "ĊĊ", "1"]
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.model_max_length == 8192


def test_llm_writes_english(llm):
    tokenizer, model = llm

    def write(batch):
        (ids,) = model.generate(**batch, max_new_tokens=24, do_sample=False)
        prompt_length = batch["input_ids"].shape[1]
        return tokenizer.decode(ids[prompt_length:])

    assert write(tokenizer("The capital of France is", return_tensors="pt")).startswith(" Paris")
    chat = [{"role": "user", "content": "Name three fruits."}]
    batch = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = write(batch)
    assert answer.endswith("<|im_end|>")
    assert "banana" in answer.lower()
