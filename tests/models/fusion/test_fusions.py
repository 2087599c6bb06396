"""Every fusion against a plain computation in float64, forward and gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palam import PalamError
from palam.models.fusion.base import NORMALIZE
from palam.models.registry import FUSIONS

WIDTH, LAYERS = 12, 4
VARIANTS = {
    "last": ("last", {}),
    "mean": ("mean", {}),
    "global_softmax": ("global_softmax", {}),
    "global_softmax paper": ("global_softmax", {"paper_temperature": True}),
    "transformer_softmax": ("transformer_softmax", {}),
    "transformer_softmax rank": ("transformer_softmax", {"rank": 6}),
}


def plain(name, fusion, states):
    """What the fusion should give for states [L, ..., d], from its parameters alone.

    The fused states, and the weights or None.
    """
    if fusion.normalize == "layer":
        mean = states.mean(-1, keepdim=True)
        states = (states - mean) / (((states - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt()
    if name == "last":
        return states[-1], None
    if name == "mean":
        equal = states.new_full((*states.shape[1:-1], LAYERS), 1 / LAYERS)
        return states.sum(0) / LAYERS, equal
    if name == "global_softmax":
        a = fusion.scores
        raised = torch.exp((100 + 1e5 * fusion.temperature) * a if fusion.paper_temperature else a)
        weights = (raised / raised.sum()).expand(*states.shape[1:-1], LAYERS)
    else:
        weights = literal_transformer(fusion, states)
    return torch.einsum("l...d,...l->...d", states, weights), weights


def literal_transformer(fusion, states):
    """The paper's: a transformer encoder layer over each token's layers, read at CLS.

    The sequence is [CLS, states + layer embedding].
    """
    tokens = states.flatten(1, -2).transpose(0, 1)  # [tokens, L, d]
    if fusion.layer.self_attn.embed_dim != WIDTH:
        tokens = tokens @ fusion.project.weight.T
    sequence = torch.cat(
        [fusion.cls.expand(len(tokens), 1, -1), tokens + fusion.layer_embedding], 1
    )
    old = fusion.layer
    layer = nn.TransformerEncoderLayer(
        old.self_attn.embed_dim,
        nhead=1,
        dim_feedforward=old.linear1.out_features,
        dropout=old.dropout.p,
        activation="relu",
        norm_first=False,
        batch_first=True,
    ).to(tokens.dtype)
    layer.train(fusion.training)
    read = torch.func.functional_call(layer, dict(old.named_parameters()), (sequence,))
    scores = read[:, 0] @ fusion.score.weight.T + fusion.score.bias
    return scores.softmax(-1).reshape(*states.shape[1:-1], LAYERS)


def build(variant, normalize="none", **options):
    """A fusion in float64 and eval mode, away from its start, where some gradients are zero."""
    name, settings = VARIANTS[variant]
    torch.manual_seed(1)
    fusion = FUSIONS[name](WIDTH, LAYERS, normalize, **settings, **options).double().eval()
    scales = {"temperature": 1e-5, "scores": 1e-3} if "paper_temperature" in settings else {}
    with torch.no_grad():
        for key, parameter in fusion.named_parameters():
            parameter.add_(torch.randn_like(parameter) * scales.get(key, 0.3))
    return name, fusion


def some_states(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LAYERS, *shape, WIDTH, generator=generator, dtype=torch.float64)


def test_the_variants_cover_every_fusion():
    assert {name for name, _ in VARIANTS.values()} == set(FUSIONS)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_and_gradient_equal_a_plain_computation(variant, normalize):
    name, fusion = build(variant, normalize)
    states = some_states(2, 5)
    upstream = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    results = []
    for compute in (lambda s: fusion(list(s)), lambda s: plain(name, fusion, s)):
        leaf = states.clone().requires_grad_()
        fusion.zero_grad()
        fused, weights = compute(leaf)
        total = (fused * upstream).sum()
        if weights is not None:
            total = total + (weights * torch.arange(LAYERS)).sum()
        total.backward()
        gradients = {key: parameter.grad for key, parameter in fusion.named_parameters()}
        results.append((fused, weights, leaf.grad, gradients))
    (fused, weights, gradient, gradients), (fused_, weights_, gradient_, gradients_) = results
    torch.testing.assert_close(fused, fused_, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradient, gradient_, rtol=1e-9, atol=1e-11)
    if name == "last":
        assert weights is None
    else:
        torch.testing.assert_close(weights, weights_, rtol=1e-9, atol=1e-11)
    for key, expected in gradients_.items():
        actual = torch.zeros_like(expected) if gradients[key] is None else gradients[key]
        torch.testing.assert_close(
            actual, expected, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}"
        )
        if not key.endswith("in_proj_bias"):  # the key's third of it has no effect on a softmax
            assert expected.abs().max() > 1e-9, key


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_fused_one_by_one(variant, normalize):
    _, fusion = build(variant, normalize)
    states = some_states(3, 6)
    keep = torch.rand(3, 6) < 0.6
    fused, weights = fusion(list(states))
    part, part_weights = fusion([state[keep] for state in states])
    assert fused.shape == (3, 6, fusion.output_size)
    torch.testing.assert_close(part, fused[keep], rtol=1e-9, atol=1e-12)
    if weights is not None:
        assert weights.shape == (3, 6, LAYERS)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 6, dtype=weights.dtype))
        torch.testing.assert_close(part_weights, weights[keep], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_normalised_states_have_no_scale(variant):
    _, fusion = build(variant, "layer")
    states = some_states(7)
    scales = torch.tensor([1.0, 5.0, 100.0, 1e4], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        fusion(list(states * scales))[0], fusion(list(states))[0], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_states_under_autocast_stay_within_two_percent(variant):
    _, fusion = build(variant, "layer")
    fusion = fusion.float()
    states = some_states(9).float()
    exact, _ = fusion(list(states))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = fusion(list(states.bfloat16()))
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()


def test_initial_values():
    torch.manual_seed(0)
    start = FUSIONS["transformer_softmax"](1024, 24, "none")
    for parameter in (start.cls, start.layer_embedding):
        assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
        assert abs(parameter.mean().item()) < 0.002
    states = torch.randn(LAYERS, 5, WIDTH)
    for options in ({}, {"paper_temperature": True}):
        fusion = FUSIONS["global_softmax"](WIDTH, LAYERS, "none", **options)
        fused, weights = fusion(list(states))
        torch.testing.assert_close(weights, torch.full((5, LAYERS), 1 / LAYERS))
        torch.testing.assert_close(fused, states.mean(0))


def test_the_papers_shapes():
    paper = FUSIONS["transformer_softmax"](WIDTH, LAYERS, "none")
    assert paper.layer.linear1.out_features == 2048
    assert paper.layer.dropout.p == paper.layer.self_attn.dropout == 0.1
    assert not paper.layer.norm_first
    paper = FUSIONS["global_softmax"](WIDTH, LAYERS, "none", paper_temperature=True)
    assert paper.temperature.item() == pytest.approx(1e-5)
    assert paper.scores.tolist() == pytest.approx([3e-5] * LAYERS)


def test_a_rank_is_cheaper():
    whole = FUSIONS["transformer_softmax"](256, 12, "none")
    cheap = FUSIONS["transformer_softmax"](256, 12, "none", rank=16)
    count = [sum(p.numel() for p in fusion.parameters()) for fusion in (whole, cheap)]
    assert count[1] < count[0] / 8


def test_dropout_has_the_distribution_of_the_literal_layer():
    """The same token many times over: mean and spread of its weights under dropout agree."""
    _, fusion = build("transformer_softmax", feedforward=16, dropout=0.3)
    states = [state.expand(20000, -1) for state in some_states(1)]
    torch.manual_seed(0)
    weights = fusion.train()(states)[1]
    expected = literal_transformer(fusion, torch.stack(states))
    assert weights.std(0).min() > 0.01
    error = expected.std(0) / math.sqrt(len(expected))
    assert ((weights.mean(0) - expected.mean(0)).abs() < 6 * error).all()
    torch.testing.assert_close(weights.std(0).double(), expected.std(0), rtol=0.05, atol=0)
    assert torch.equal(fusion.eval()(states)[1][0], fusion(states)[1][1])


def test_layer_normalisation_is_torchs_own():
    fusion = FUSIONS["last"](WIDTH, LAYERS, normalize="layer")
    state = torch.randn(3, WIDTH) * 7 + 2
    torch.testing.assert_close(fusion([state] * LAYERS)[0], F.layer_norm(state, (WIDTH,)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mean", {"normalize": "batch"}, "normalize is 'batch'; it must be one of: none, layer"),
        ("transformer_softmax", {"rank": 0}, "rank is 0; it must be at least 1"),
    ],
)
def test_a_wrong_option_is_refused(name, options, message):
    with pytest.raises(PalamError, match=message):
        FUSIONS[name](WIDTH, LAYERS, **{"normalize": "none", **options})


def test_the_mean_is_not_rounded_layer_by_layer():
    """In bf16 it is the mean in fp32, rounded once; its weights sum to 1."""
    fusion = FUSIONS["mean"](WIDTH, 12, "none")
    states = [torch.randn(5, WIDTH).bfloat16() for _ in range(12)]
    fused, weights = fusion(states)
    expected = torch.stack(states).float().mean(0)
    assert fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused, expected.bfloat16(), rtol=2**-8, atol=1e-6)
    assert weights.sum(-1).tolist() == pytest.approx([1] * 5, abs=1e-6)
