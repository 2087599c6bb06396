"""Layer weights and norms of a text's tokens, and their JSON form."""

import json
import math
from types import SimpleNamespace

import pytest
import tiny
import torch

from palam.inference.layer_weights import LayerView, LayerWeights, layer_weights
from palam.models.registry import FUSIONS


@pytest.mark.parametrize("fusion", FUSIONS)
def test_layer_weights_of_a_text(tiny_model, fusion):
    model = tiny_model("xlmr", fusion=fusion, normalize="layer").train()
    tokens, weights, norms = layer_weights(model, "I am going home.")
    assert tokens[0] == "<s>"
    assert tokens[-1] == "</s>"
    assert weights.shape == norms.shape == (len(tokens), tiny.LAYERS)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(tokens)))
    layer_normalised = torch.full_like(norms, math.sqrt(32))
    torch.testing.assert_close(norms, layer_normalised, rtol=1e-3, atol=0)
    if fusion == "last":
        assert weights[:, -1].tolist() == [1] * len(tokens)
    assert model.bridge.training


def test_of_reads_what_the_model_gives(tiny_model):
    model = tiny_model("bert", fusion="transformer_softmax")
    tokens, weights, norms = layer_weights(model, "The quick fox")
    view = LayerView.of(model, "The quick fox", "en")
    assert (view.text, view.tokens, view.language) == ("The quick fox", tokens, "en")
    assert torch.equal(view.weights, weights)
    assert torch.equal(view.norms, norms)


def test_byte_level_tokens_are_shown_as_characters(monkeypatch):
    tokenizer = tiny.fast(tiny.byte_bpe(["<s>"], bos="<s>"), bos_token="<s>")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ම a")["input_ids"])
    ones = torch.ones(len(tokens), 2)
    monkeypatch.setattr(
        "palam.inference.layer_weights.layer_weights",
        lambda model, text, language: LayerWeights(tokens, ones, ones),
    )
    model = SimpleNamespace(processor=SimpleNamespace(encoder_tokenizer=tokenizer))
    assert tokens == ["<s>", "à¶¸", "Ġa"]
    assert LayerView.of(model, "ම a").tokens == ["<s>", "ම", "▁a"]


def test_shares_are_weight_times_norm_of_each_token():
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    norms = torch.tensor([[1.0, 3.0], [0.0, 7.0]])
    view = LayerView("t", ["a", "b"], weights, norms)
    assert view.shares.tolist() == [[0.25, 0.75], [0.0, 0.0]]  # no division by zero


def test_json_round_trip():
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(3, 12), -1)
    view = LayerView("ගෙදර", ["<s>", "▁ගෙදර", "</s>"], weights, torch.rand(3, 12), "sin_Sinh")
    again = LayerView.from_dict(json.loads(json.dumps(view.to_dict())))
    assert (again.text, again.tokens, again.language) == (view.text, view.tokens, view.language)
    assert torch.equal(again.weights, view.weights)
    assert torch.equal(again.norms, view.norms)
