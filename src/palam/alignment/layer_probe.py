"""A bounded sample of aligned tokens: to compare layers and fusions on, and to fit fusions on."""

import copy
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from palam.alignment.ridge import STRENGTHS, RidgeStatistics
from palam.alignment.token_alignment import AlignedBatch, AlignedTokens
from palam.errors import PalamError
from palam.models.bridge import PalamBridge
from palam.models.finite import check_finite
from palam.models.fusion.base import Fusion
from palam.models.modeling import PalamModel
from palam.models.registry import FUSIONS

MAX_SAMPLE_TOKENS = 20_000
"""Tokens to fit on in a sample, and as many held-out ones."""
MAX_SAMPLE_NUMBERS = 2**28
"""Numbers in the states of so many tokens; bounds the memory for large encoders."""
FIT_STEPS = 60
"""Gradient steps in which a fusion's weights are fitted."""
FIT_TOKENS = 6000
"""Tokens of a sample that these steps use."""
SCORES_LEARNING_RATE = 0.05
"""Of a fusion with a handful of scores, which must move far in few steps."""
MATRICES_LEARNING_RATE = 1e-3
"""Of a fusion with matrices, which must not."""
TOKENS_AT_ONCE = 1024
"""Mapped tokens that are compared with a part of the LLM's embeddings at a time."""
ROWS_AT_ONCE = 8192
"""Rows of the LLM's embeddings in such a part."""


class AlignedSample(NamedTuple):
    """Aligned tokens in memory."""

    fit: AlignedTokens
    """Those to fit on."""
    held_out: AlignedTokens
    """Those to measure on."""

    @classmethod
    def take(cls, model: PalamModel, batches: Iterable[AlignedBatch]) -> "AlignedSample":
        """From the front of aligned batches, as much as is to be kept in memory.

        Args:
            model: the sizes of its encoder bound the sample.
            batches: those of [`aligned_batches`]; no more are read than are needed.

        Raises:
            PalamError: too little text.
        """
        numbers_per_token = sum(model.config.layer_widths)
        limit = min(MAX_SAMPLE_TOKENS, MAX_SAMPLE_NUMBERS // numbers_per_token)
        fit: list[AlignedTokens] = []
        held_out: list[AlignedTokens] = []
        for batch in batches:
            part = held_out if batch.held_out else fit
            part.append(batch.tokens)
            if _count(fit) >= limit:
                break
        if _count(fit) < 2 or _count(held_out) < 2:
            raise PalamError("too little text to compare layers on: give more")
        return cls(_joined(fit, limit), _joined(held_out, limit))


def _count(parts: Sequence[AlignedTokens]) -> int:
    return sum(len(part.ids) for part in parts)


def _joined(
    parts: Sequence[AlignedTokens],
    limit: int,
) -> AlignedTokens:
    """The first tokens of all parts, `limit` at most."""
    states = []
    for layer in range(len(parts[0].states)):
        state = torch.cat([part.states[layer] for part in parts])
        states.append(state[:limit])
    targets = torch.cat([part.targets for part in parts])
    ids = torch.cat([part.ids for part in parts])
    return AlignedTokens(states, targets[:limit], ids[:limit])


@torch.no_grad()
def nearest_token_accuracy(
    model: PalamModel,
    mapped: Tensor,
    ids: Tensor,
) -> float:
    """How often the LLM's nearest embedding to a mapped vector, by cosine, is of the right token.

    Args:
        model: whose LLM has the embeddings.
        mapped: [tokens, d_llm].
        ids: [tokens], the right tokens.
    """
    embeddings = model.llm.get_input_embeddings().weight
    parts = []
    for part in torch.split(mapped, TOKENS_AT_ONCE):
        parts.append(_nearest_rows(part.float(), embeddings))
    nearest = torch.cat(parts)
    right = nearest == ids.to(nearest.device)
    return right.float().mean().item()


def _nearest_rows(vectors: Tensor, embeddings: Tensor) -> Tensor:
    """The row of the embeddings that is nearest to each vector by cosine, [vectors].

    A part of the vocabulary at a time: all of it in fp32, beside the similarities with all of it,
    is hundreds of megabytes for a small LLM, gigabytes for a large one.
    """
    best = vectors.new_full((len(vectors),), -torch.inf)
    nearest = torch.zeros(len(vectors), dtype=torch.long, device=vectors.device)
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        rows = embeddings[start : start + ROWS_AT_ONCE].float()
        similarities, places = (vectors @ F.normalize(rows, dim=-1).T).max(1)
        is_nearer = similarities > best
        best = torch.where(is_nearer, similarities, best)
        nearest = torch.where(is_nearer, start + places, nearest)
    return nearest


class ProbeRow(TypedDict):
    """How well the tokens' states, of one layer or fused, can be mapped to the LLM's embeddings."""

    name: str
    """`layer 1`, ..., or a fusion's name."""
    r2: float
    """Share of the variance of held-out embeddings that the solved map explains."""
    nearest_token_accuracy: float
    """How often the embedding nearest to a mapped held-out token is that of the right token."""


def probe_layers(model: PalamModel, sample: AlignedSample) -> list[ProbeRow]:
    """Solve a linear map from each layer, and from every fusion, and measure it.

    Args:
        model: its layers, normalised as its fusion normalises them; it stays as it is. The weights
            of every fusion are fitted on the sample, those of its own from where they are.
        sample: of [`AlignedSample.take`].

    Returns:
        A row for each layer of each encoder, then one for each fusion.
    """
    samples = _samples_by_fusion(model.bridge, sample)
    rows = []
    for number, (fusion, own) in enumerate(samples):
        for layer in range(fusion.num_layers):
            fit = fusion.prepare(own.fit.states[layer].float())
            held_out = fusion.prepare(own.held_out.states[layer].float())
            name = f"layer {layer + 1}" if number == 0 else f"second encoder's layer {layer + 1}"
            rows.append(_probe(name, model, sample, fit, held_out))
    for name, kind in FUSIONS.items():
        parts = []
        for fusion, own in samples:
            if type(fusion) is kind:
                candidate = copy.deepcopy(fusion)
            else:
                candidate = _new_fusion(kind, fusion).to(model.device)
            fit_fusion_weights(candidate, own)
            parts.append((_fused(candidate, own.fit), _fused(candidate, own.held_out)))
        fits, held_outs = zip(*parts, strict=True)
        rows.append(_probe(name, model, sample, torch.cat(fits, -1), torch.cat(held_outs, -1)))
    return rows


def fit_fusions(bridge: PalamBridge, sample: AlignedSample) -> None:
    """Fit the own weights of a bridge's fusion, or of both; see [`fit_fusion_weights`].

    Args:
        bridge: its fusions are changed.
        sample: of [`AlignedSample.take`].
    """
    for fusion, own in _samples_by_fusion(bridge, sample):
        fit_fusion_weights(fusion, own)


def _samples_by_fusion(
    bridge: PalamBridge, sample: AlignedSample
) -> list[tuple[Fusion, AlignedSample]]:
    """Each encoder's fusion, with the sample's states of that encoder."""
    pairs = zip(
        bridge.fusions(sample.fit.states), bridge.fusions(sample.held_out.states), strict=True
    )
    samples = []
    for (fusion, fit), (_, held_out) in pairs:
        own = AlignedSample(
            sample.fit._replace(states=list(fit)),
            sample.held_out._replace(states=list(held_out)),
        )
        samples.append((fusion, own))
    return samples


def _new_fusion(kind: type[Fusion], like: Fusion) -> Fusion:
    """Another fusion for the same encoder, in evaluation, always with the same initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fusion = kind(like.hidden_size, like.num_layers, normalize=like.normalize)
    return fusion.eval()


@torch.no_grad()
def _fused(fusion: Fusion, tokens: AlignedTokens) -> Tensor:
    """The tokens' fused states [tokens, d]."""
    states = [state.float() for state in tokens.states]
    fused: Tensor = fusion(states)[0]
    return fused


def _probe(
    name: str,
    model: PalamModel,
    sample: AlignedSample,
    fit: Tensor,
    held_out: Tensor,
) -> ProbeRow:
    """Solve a map from the states of the sample's tokens, [tokens, d] each, and measure it."""
    fit_statistics = _statistics(fit, sample.fit.targets)
    held_out_statistics = _statistics(held_out, sample.held_out.targets)
    best = fit_statistics.best(held_out_statistics)
    weight, bias = best.solution
    mapped = held_out @ weight.T.to(held_out) + bias.to(held_out)
    accuracy = nearest_token_accuracy(model, mapped, sample.held_out.ids)
    return ProbeRow(
        name=name,
        r2=best.r2,
        nearest_token_accuracy=accuracy,
    )


def _statistics(states: Tensor, targets: Tensor) -> RidgeStatistics:
    inputs = states.shape[1]
    outputs = targets.shape[1]
    statistics = RidgeStatistics(inputs, outputs, states.device)
    statistics.add(states, targets)
    return statistics


@torch.enable_grad()
def fit_fusion_weights(
    fusion: Fusion,
    sample: AlignedSample,
    strength: float = STRENGTHS[3],
) -> None:
    """Fit a fusion's own weights, in place, by the solved map's error on tokens not solved on.

    The map is solved in closed form from one half of the tokens at every step, and the gradient of
    the other half's error goes through that solution (variable projection): no base model takes
    part.

    Args:
        fusion: one without weights stays as it is.
        sample: its `fit` part is used.
        strength: of the ridge, relative to the features' mean variance.

    Raises:
        PalamError: the sample is too small or too uniform, or a number is not finite.
    """
    weights = list(fusion.parameters())
    if not weights:
        return
    states = [state[:FIT_TOKENS].float() for state in sample.fit.states]
    targets = sample.fit.targets[:FIT_TOKENS]
    has_matrices = any(weight.ndim > 1 for weight in weights)
    learning_rate = MATRICES_LEARNING_RATE if has_matrices else SCORES_LEARNING_RATE
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    for _ in range(FIT_STEPS):
        fused, _ = fusion(states)
        check_finite(fused, "the fused states")
        error = _held_out_error(fused, targets, strength)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    check_finite(dict(fusion.named_parameters()), "the fitted weights of the fusion")


def _held_out_error(
    fused: Tensor,
    targets: Tensor,
    strength: float,
) -> Tensor:
    """The mean squared error, on the second half of the rows, of a ridge solved on the first."""
    half = len(targets) // 2
    x = fused - fused[:half].mean(0)
    y = targets - targets[:half].mean(0)
    gram = x[:half].T @ x[:half]
    products = x[:half].T @ y[:half]
    identity = torch.eye(len(gram), device=gram.device)
    ridge = strength * gram.diagonal().mean() * identity
    try:
        solution = torch.linalg.solve(gram + ridge, products)
    except RuntimeError:  # it is singular
        raise PalamError("too little text to fit the fusion's weights on: give more") from None
    error: Tensor = x[half:] @ solution - y[half:]
    return error.square().mean()
