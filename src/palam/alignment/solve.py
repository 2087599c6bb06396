"""The solved start: the mapper's readout in closed form, from English text alone.

The encoder's tokens and the LLM's tokens of the same text are aligned by character offsets; one ridge regression
takes the fused states to the LLM's own input embeddings of the same characters. No gradient through a base model,
no label, no foreign text. Only sums over tokens are kept, so memory does not depend on the number of texts.
"""

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice, repeat

import torch
from torch import Tensor, distributed

from palam.alignment.layer_probe import AlignedSample, fit_fusion_weights, nearest_token_accuracy
from palam.alignment.ridge import RidgeStatistics
from palam.alignment.token_alignment import AlignedTokens, align_tokens
from palam.errors import PalamError
from palam.models.modeling import PalamModel

HELD_OUT_EVERY = 10
CHUNK = 64  # batches whose texts are sorted by length together
NEAREST_TOKENS = 4096


@dataclass
class AlignmentResult:
    """What a solve found. The shares are of held-out tokens."""

    tokens: int
    """Aligned tokens that the solution rests on."""
    strength: float
    """Ridge strength, relative to the features' mean variance."""
    r2: float
    """Share of the variance of the LLM's embeddings that is explained."""
    nearest_token_accuracy: float
    """How often the LLM's nearest embedding, by cosine, is that of the right token."""


def aligned_batches(
    model: PalamModel,
    texts: Iterable[str],
    languages: Iterable[str | None] | None = None,
    size: int = 32,
) -> Iterator[tuple[bool, AlignedTokens]]:
    """Aligned tokens of some texts at a time; True for those held out, every tenth text.

    Where several processes work together, each gets its share of the texts.
    """
    together = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    if isinstance(texts, Sized) and isinstance(languages, Sized) and len(texts) != len(languages):
        raise PalamError(
            f"{len(texts)} texts but {len(languages)} languages; give one language per text"
        )
    rows = zip(texts, repeat(None) if languages is None else languages, strict=False)
    mine = (
        (i % HELD_OUT_EVERY == 0, *row)
        for i, row in enumerate(rows)
        if i // HELD_OUT_EVERY % world == rank
    )
    while chunk := list(islice(mine, CHUNK * size)):
        for held in (True, False):
            part = sorted((row for row in chunk if row[0] == held), key=lambda row: -len(row[1]))
            for first in range(0, len(part), size):
                _, some, codes = zip(*part[first : first + size], strict=True)
                yield held, align_tokens(model, some, codes)


@torch.no_grad()
def solve_bridge(
    model: PalamModel, texts: Iterable[str], languages: Iterable[str | None] | None = None, *, batch_size: int = 32,
    sample: AlignedSample | None = None,
) -> AlignmentResult:  # fmt: skip
    """Solve the mapper's readout, in place.

    Every tenth text is held out to choose the ridge strength; the solution then uses all of them. Its output is
    scaled to the size of the LLM's embeddings: a ridge regression's is smaller, by what it cannot explain.

    Args:
        model: its bridge's mapper is changed.
        texts: English texts; read once, a chunk at a time.
        languages: one per text, for encoders that must be told.
        batch_size: texts at a time.
        sample: where the fusion's own weights are searched first, if it has any; None leaves them as they are.

    Raises:
        PalamError: fewer aligned tokens than a regression needs, not one language per text, or a tokenizer without
            offsets.
    """
    bridge, readout = model.bridge, model.bridge.mapper.readout
    fit, held = (
        RidgeStatistics(readout.in_features, readout.out_features, model.device) for _ in range(2)
    )
    kept: list[tuple[Tensor, Tensor]] = []
    with model.evaluating():
        if sample is not None:
            fit_fusion_weights(bridge.fusion, sample)
        for is_held, pairs in aligned_batches(model, texts, languages, batch_size):
            fused, _ = bridge.fusion([state.float() for state in pairs.states])
            features = bridge.mapper.features(fused)
            (held if is_held else fit).add(features, pairs.targets)
            if is_held and sum(len(ids) for _, ids in kept) < NEAREST_TOKENS:
                kept.append((features, pairs.ids))
    for moments in (fit, held):
        moments.merge_processes()
    if not fit.count:  # a single text
        fit.merge(held)
    if fit.count < 2 or held.count < 2:
        raise PalamError(
            "too little text to solve the start from: give more, or train with --init random"
        )
    strength, weight, bias, r2 = fit.best(held)
    features, ids = (torch.cat(parts) for parts in zip(*kept, strict=True))
    right = nearest_token_accuracy(model, features @ weight.T.to(features) + bias.to(features), ids)
    fit.merge(held)
    weight, bias = fit.solve([strength])[0]
    scale = fit.scale(weight, bias)
    readout.weight.copy_(scale * weight)
    readout.bias.copy_(scale * bias)
    return AlignmentResult(int(fit.count), strength, r2, right)
