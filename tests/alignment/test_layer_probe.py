import copy

import pytest
import torch
from plain_ridge import TEXTS

from palam import PalamError
from palam.alignment.layer_probe import AlignedSample, fit_fusion_weights, probe_layers
from palam.alignment.solve import aligned_batches, solve_bridge
from palam.alignment.token_alignment import AlignedTokens
from palam.models.fusion import FUSIONS


@pytest.fixture
def sample(tiny_model):
    model = tiny_model("xlmr", fusion="mean", normalize="layer")
    return AlignedSample.take(model, aligned_batches(model, TEXTS))


def made_of_layer(which, layers=3, width=8, tokens=400):
    """Tokens whose targets are a linear map of one layer alone."""
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(tokens, width, generator=generator) for _ in range(layers)]
    targets = states[which] @ torch.randn(width, 5, generator=generator)
    pairs = AlignedTokens(states, targets, torch.zeros(tokens, dtype=torch.long))
    return AlignedSample(pairs, pairs)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("fusion", ["global_softmax", "transformer_softmax"])
def test_the_search_finds_the_layer_that_the_targets_are_made_of(fusion, which):
    torch.manual_seed(0)
    found = FUSIONS[fusion](8, 3).eval()
    made = made_of_layer(which)
    before = found(made.fit.states)[1].mean(0)[which].item()
    fit_fusion_weights(found, made)
    after = found(made.fit.states)[1].mean(0)
    assert after[which] > before + 0.2
    assert after.argmax() == which


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_search_ends_where_a_repetition_ends_and_keeps_the_names_of_the_weights(fusion):
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        made = FUSIONS[fusion](8, 3, normalize="layer").eval()
        names = list(made.state_dict())
        fit_fusion_weights(made, made_of_layer(1))
        assert list(made.state_dict()) == names
        ends.append(made.state_dict())
    for name in ends[0]:
        assert torch.equal(ends[0][name], ends[1][name])


def test_a_probe_has_every_layer_and_every_fusion_and_agrees_with_a_solve(tiny_model):
    model = tiny_model("xlmr", fusion="mean", normalize="layer")
    weights = copy.deepcopy(model.bridge.state_dict())
    rows = {
        row["name"]: row
        for row in probe_layers(model, AlignedSample.take(model, aligned_batches(model, TEXTS)))
    }
    assert list(rows) == ["layer 1", "layer 2", "layer 3", *FUSIONS]
    assert rows["layer 3"]["r2"] == rows["last"]["r2"]
    assert all(0 <= row["nearest"] <= 1 and row["r2"] <= 1 for row in rows.values())
    for key, value in model.bridge.state_dict().items():
        assert torch.equal(value, weights[key]), key
    solved = solve_bridge(model, TEXTS)
    assert rows["mean"]["r2"] == pytest.approx(solved.r2, abs=1e-4)
    assert rows["mean"]["nearest"] == pytest.approx(solved.nearest)


def test_a_sample_is_bounded(tiny_model, monkeypatch):
    monkeypatch.setattr("palam.alignment.layer_probe.MOST_TOKENS", 40)
    model = tiny_model("xlmr", fusion="mean")
    endless = (text for _ in iter(int, 1) for text in TEXTS)
    made = AlignedSample.take(model, aligned_batches(model, endless, size=2))
    assert len(made.fit.ids) == len(made.fit.targets) == 40
    assert [len(state) for state in made.fit.states] == [40] * 3
    assert 1 < len(made.held.ids) <= 40


@pytest.mark.parametrize("texts", [[], [""], TEXTS[:1]])
def test_too_little_text_is_one_line(tiny_model, texts):
    model = tiny_model("xlmr")
    with pytest.raises(PalamError, match="too little text to compare layers on"):
        AlignedSample.take(model, aligned_batches(model, texts))
