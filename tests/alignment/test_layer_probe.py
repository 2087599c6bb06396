"""The sample of aligned tokens, the probe of layers and fusions on it, and fitted fusions."""

import copy

import pytest
import torch
from plain_ridge import TEXTS

from palam import PalamError
from palam.alignment.layer_probe import (
    AlignedSample,
    fit_fusion_weights,
    nearest_token_accuracy,
    probe_layers,
)
from palam.alignment.solve import aligned_batches, solve_bridge
from palam.alignment.token_alignment import AlignedTokens
from palam.models.registry import FUSIONS


@pytest.fixture
def sample(tiny_model):
    model = tiny_model("xlmr", fusion="mean", normalize="layer")
    return AlignedSample.take(model, aligned_batches(model, TEXTS))


def sample_of_layer(which, layers=3, width=8, tokens=400):
    """Tokens whose targets are a linear map of one layer alone."""
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(tokens, width, generator=generator) for _ in range(layers)]
    targets = states[which] @ torch.randn(width, 5, generator=generator)
    aligned = AlignedTokens(states, targets, torch.zeros(tokens, dtype=torch.long))
    return AlignedSample(aligned, aligned)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("name", ["global_softmax", "transformer_softmax"])
def test_fitted_weights_favour_the_layer_that_the_targets_are_made_of(name, which):
    torch.manual_seed(0)
    fusion = FUSIONS[name](8, 3, normalize="none").eval()
    sample = sample_of_layer(which)
    before = fusion(sample.fit.states)[1].mean(0)[which].item()
    fit_fusion_weights(fusion, sample)
    after = fusion(sample.fit.states)[1].mean(0)
    assert after[which] > before + 0.2
    assert after.argmax() == which


@pytest.mark.parametrize("name", FUSIONS)
def test_fitting_again_gives_the_same_weights_under_the_same_names(name):
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        fusion = FUSIONS[name](8, 3, normalize="layer").eval()
        weight_names = list(fusion.state_dict())
        fit_fusion_weights(fusion, sample_of_layer(1))
        assert list(fusion.state_dict()) == weight_names
        results.append(fusion.state_dict())
    first, second = results
    for weight_name in first:
        assert torch.equal(first[weight_name], second[weight_name])


def test_a_probe_has_every_layer_and_every_fusion_and_agrees_with_a_solve(tiny_model):
    model = tiny_model("xlmr", fusion="mean", normalize="layer")
    weights = copy.deepcopy(model.bridge.state_dict())
    sample = AlignedSample.take(model, aligned_batches(model, TEXTS))
    rows = {row["name"]: row for row in probe_layers(model, sample)}
    assert list(rows) == ["layer 1", "layer 2", "layer 3", *FUSIONS]
    assert rows["layer 3"]["r2"] == rows["last"]["r2"]
    for row in rows.values():
        assert row["r2"] <= 1
        assert 0 <= row["nearest_token_accuracy"] <= 1
    for key, value in model.bridge.state_dict().items():
        assert torch.equal(value, weights[key]), key
    result = solve_bridge(model, TEXTS)
    mean = rows["mean"]
    assert mean["r2"] == pytest.approx(result.r2, abs=1e-4)
    assert mean["nearest_token_accuracy"] == pytest.approx(result.nearest_token_accuracy)


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (7, 3), (64, 5), (1000, 1000)])
def test_the_nearest_token_does_not_depend_on_how_many_are_compared_at_a_time(
    tiny_model, monkeypatch, tokens, rows
):
    model = tiny_model("xlmr", fusion="mean", normalize="layer")
    embeddings = model.llm.get_input_embeddings().weight.detach()
    generator = torch.Generator().manual_seed(0)
    mapped = torch.randn(50, embeddings.shape[1], generator=generator)
    similarities = torch.nn.functional.cosine_similarity(mapped[:, None], embeddings[None], dim=-1)
    nearest = similarities.argmax(1)
    ids = torch.where(torch.arange(50) < 20, nearest, (nearest + 1) % len(embeddings))
    monkeypatch.setattr("palam.alignment.layer_probe.TOKENS_AT_ONCE", tokens)
    monkeypatch.setattr("palam.alignment.layer_probe.ROWS_AT_ONCE", rows)
    assert nearest_token_accuracy(model, mapped, ids) == pytest.approx(20 / 50)


def test_a_sample_is_bounded(tiny_model, monkeypatch):
    monkeypatch.setattr("palam.alignment.layer_probe.MAX_SAMPLE_TOKENS", 40)
    model = tiny_model("xlmr", fusion="mean")
    endless = (text for _ in iter(int, 1) for text in TEXTS)
    sample = AlignedSample.take(model, aligned_batches(model, endless, size=2))
    assert len(sample.fit.ids) == len(sample.fit.targets) == 40
    assert [len(state) for state in sample.fit.states] == [40] * 3
    assert 1 < len(sample.held_out.ids) <= 40


@pytest.mark.parametrize("texts", [[], [""], TEXTS[:1]])
def test_too_little_text_is_one_line(tiny_model, texts):
    model = tiny_model("xlmr")
    batches = aligned_batches(model, texts)
    with pytest.raises(PalamError, match="too little text to compare layers on"):
        AlignedSample.take(model, batches)
