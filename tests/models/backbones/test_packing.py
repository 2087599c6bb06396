"""Packed matrices: the same numbers up to rounding, for reading alone."""

import pytest
import torch
from helpers import TEXTS, batch_of, prompts, refusal
from torch import nn

from palam.models.backbones import packing
from palam.models.backbones.packing import PackedLinear, pack_llm

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)
PROMPT = {"mode": "prompt", "prompt": "{text}\nTopic:"}


@pytest.fixture(autouse=True)
def packing_always_pays(monkeypatch):
    monkeypatch.setattr(packing, "packing_pays", lambda dtype: dtype == torch.float32)


@pytest.mark.parametrize("llm", ["llama", "gemma3", "opt", "qwen"])
def test_answers_and_scores_are_the_same(tiny_model, base_folder, llm):
    model = tiny_model(llm=base_folder(llm, tie_word_embeddings=False), **PROMPT)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    ids = model.generate(**prompts(model), **options)
    with torch.no_grad():
        logits = model(**batch_of(model)).logits
    count = sum(type(module) is nn.Linear for module in model.llm.modules())
    assert pack_llm(model.llm) == count > 4
    assert torch.equal(model.generate(**prompts(model), **options), ids)
    with torch.no_grad():
        packed_logits = model(**batch_of(model)).logits
    assert torch.allclose(packed_logits, logits, rtol=1e-4, atol=1e-4)
    assert len({tuple(row.tolist()) for row in ids}) > 1
    assert len(ids) == len(TEXTS)
    assert pack_llm(model.llm) == 0


def test_the_embeddings_stay_where_the_head_shares_them(tiny_model):
    model = tiny_model(**PROMPT)
    table = model.llm.get_input_embeddings().weight
    ids = torch.tensor([[5, 6]])
    before = model.embed(ids)
    assert pack_llm(model.llm)
    assert model.llm.get_input_embeddings().weight is table
    assert torch.equal(model.embed(ids), before)


def test_there_is_no_gradient_through_it(tiny_model):
    model = tiny_model(**PROMPT)
    assert pack_llm(model.llm)
    model.train()
    assert "packed for reading" in refusal(model, **batch_of(model))


def test_what_is_no_plain_matrix_stays(tiny_model, monkeypatch):
    class Special(nn.Linear):
        pass

    model = tiny_model(**PROMPT)
    model.llm.lm_head = Special(4, 4)
    pack_llm(model.llm)
    assert type(model.llm.lm_head) is Special
    quantized = tiny_model(**PROMPT)
    monkeypatch.setattr(quantized.llm, "is_quantized", True, raising=False)
    assert pack_llm(quantized.llm) == 0
    half = tiny_model(dtype=torch.float16, **PROMPT)
    assert pack_llm(half.llm) == 0


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_inputs_of_any_shape_and_layout(bias):
    torch.manual_seed(0)
    linear = nn.Linear(24, 40, bias=bias)
    packed = PackedLinear(linear)
    inputs = torch.randn(3, 5, 24)
    for values in (inputs, inputs[0], inputs.transpose(0, 1), inputs[:, :1], inputs[:, ::2]):
        assert torch.allclose(packed(values), linear(values), atol=1e-5)
