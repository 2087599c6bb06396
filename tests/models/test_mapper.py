"""Every mapper against a plain computation."""

import pytest
import torch

from palam.models.registry import MAPPERS


@pytest.mark.parametrize("name", MAPPERS)
def test_the_output_is_the_readout_of_the_features(name):
    mapper = MAPPERS[name](8, 12)
    fused = torch.randn(2, 5, 8)
    features = mapper.features(fused)
    assert features.shape[-1] == mapper.readout.in_features
    expected = features @ mapper.readout.weight.T + mapper.readout.bias
    assert mapper(fused).shape == (2, 5, 12)
    torch.testing.assert_close(mapper(fused), expected)
    assert mapper.readout.bias.abs().max() == 0


@pytest.mark.parametrize("name", MAPPERS)
def test_rescale_multiplies_the_output(name):
    mapper = MAPPERS[name](8, 12)
    torch.nn.init.normal_(mapper.readout.bias)
    fused = torch.randn(3, 8)
    before = mapper(fused)
    mapper.rescale(0.25)
    torch.testing.assert_close(mapper(fused), 0.25 * before)


def test_linear_reads_the_fused_states_themselves():
    fused = torch.randn(3, 8)
    assert MAPPERS["linear"](8, 12).features(fused) is fused


@pytest.mark.parametrize(("hidden", "width"), [(None, 12), (20, 20)])
def test_mlp_has_one_gelu_layer_between(hidden, width):
    mapper = MAPPERS["mlp"](8, 12, hidden_size=hidden)
    fused = torch.randn(3, 8)
    inner = fused @ mapper.hidden.weight.T + mapper.hidden.bias
    expected = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    assert mapper.features(fused).shape == (3, width)
    torch.testing.assert_close(mapper.features(fused), expected)
