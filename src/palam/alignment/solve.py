"""The solved start: the mapper's readout in closed form, from English text alone.

The encoder's tokens and the LLM's tokens of the same text are aligned by character offsets; one
ridge regression takes the fused states to the LLM's own input embeddings of the same characters. No
gradient through a base model, no label, no foreign text. Only sums over tokens are kept, so memory
does not depend on the number of texts.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from palam.alignment.layer_probe import AlignedSample, fit_fusions, nearest_token_accuracy
from palam.alignment.passages import PassageSplitter
from palam.alignment.ridge import RidgeStatistics, is_shared
from palam.alignment.token_alignment import AlignedBatch, align_tokens
from palam.errors import PalamError
from palam.models.finite import check_finite
from palam.models.modeling import PalamModel
from palam.utils.texts import checked_texts

HELD_OUT_EVERY = 10
"""One text of so many is held out."""
CHUNK_BATCHES = 64
"""Batches whose texts are sorted by length together."""
NEAREST_TOKENS = 4096
"""Held-out tokens that are enough to measure the nearest-token accuracy on."""


@dataclass
class AlignmentResult:
    """What a solved map is worth, by held-out tokens."""

    tokens: int
    """Aligned tokens that the solution rests on."""
    strength: float
    """Ridge strength, relative to the features' mean variance."""
    r2: float
    """Share of the variance of the LLM's embeddings that is explained."""
    nearest_token_accuracy: float
    """How often the LLM's nearest embedding, by cosine, is that of the right token."""


def align(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    batch_size: int = 32,
) -> AlignmentResult:
    """Solve a bridge from English text in closed form, in place; it needs no training to be used.

    A fusion's own weights are fitted first, on a sample of the texts.

    Args:
        model: its bridge's mapper, and its fusion where that has weights, are changed.
        texts: English texts of any length, see [`aligned_batches`]; the first of them are read
            twice if the fusion has weights.
        languages: one per text, for encoders that must be told.
        batch_size: texts at a time.

    Raises:
        PalamError: texts that are no strings, too little text, not one language per text, a
            tokenizer without offsets, or numbers that are not finite. The bridge is then as it was.
    """
    texts = checked_texts(texts)
    sample = None
    if model.bridge.fusion_weights():
        batches = aligned_batches(model, texts, languages)
        sample = AlignedSample.take(model, batches)
    return solve_bridge(model, texts, languages, batch_size=batch_size, sample=sample)


@torch.no_grad()
def solve_bridge(
    model: PalamModel,
    texts: Iterable[str],
    languages: Iterable[str | None] | None = None,
    *,
    batch_size: int = 32,
    sample: AlignedSample | None = None,
) -> AlignmentResult:
    """Solve the mapper's readout, in place.

    Every tenth text is held out to choose the ridge strength; the solution then uses all of them.
    Its output is scaled to the size of the LLM's embeddings: a ridge regression's is smaller, by
    what it cannot explain.

    Args:
        model: its bridge's mapper is changed.
        texts: English texts; read once, a chunk at a time.
        languages: one per text, for encoders that must be told.
        batch_size: texts at a time.
        sample: what the fusion's own weights are fitted on first, if it has any; None leaves them
            as they are.

    Raises:
        PalamError: fewer aligned tokens than a regression needs, not one language per text, a
            tokenizer without offsets, or numbers that are not finite. The bridge is then as it was.
    """
    before = copy.deepcopy(model.bridge.state_dict())
    try:
        with model.evaluating():
            if sample is not None:
                fit_fusions(model.bridge, sample)
            batches = aligned_batches(model, texts, languages, batch_size)
            sums = _collect_sums(model, batches)
        return _solve_mapper(model, sums)
    except BaseException:
        model.bridge.load_state_dict(before)
        raise


def _solve_mapper(model: PalamModel, sums: "_Sums") -> AlignmentResult:
    """Solve the mapper's readout from sums, in place."""
    fit = sums.fit
    held_out = sums.held_out
    if not fit.count:  # a single text
        fit.merge(held_out)
    if fit.count < 2 or held_out.count < 2:
        raise PalamError(
            "too little text to solve the start from: give more, or train with --init random"
        )
    best = fit.best(held_out)
    weight, bias = best.solution
    features = torch.cat(sums.features)
    mapped = features @ weight.T.to(features) + bias.to(features)
    accuracy = nearest_token_accuracy(model, mapped, torch.cat(sums.ids))
    fit.merge(held_out)
    (solution,) = fit.solve([best.strength])
    scale = fit.scale(*solution)
    readout = model.bridge.mapper.readout
    readout.weight.copy_(scale * solution.weight)
    readout.bias.copy_(scale * solution.bias)
    check_finite(dict(readout.named_parameters()), "the solved mapper's weights")
    return AlignmentResult(
        tokens=int(fit.count),
        strength=best.strength,
        r2=best.r2,
        nearest_token_accuracy=accuracy,
    )


class _Sums(NamedTuple):
    """What is kept of aligned tokens."""

    fit: RidgeStatistics
    held_out: RidgeStatistics
    features: list[Tensor]
    """[tokens, features] of some held-out tokens, as the mapper's readout takes them."""
    ids: list[Tensor]
    """[tokens], the LLM's tokens in their place."""


def _collect_sums(model: PalamModel, batches: Iterable[AlignedBatch]) -> _Sums:
    """The sums over all aligned tokens, of all processes together."""
    bridge = model.bridge
    inputs = bridge.mapper.readout.in_features
    outputs = bridge.mapper.readout.out_features
    sums = _Sums(
        fit=RidgeStatistics(inputs, outputs, model.device),
        held_out=RidgeStatistics(inputs, outputs, model.device),
        features=[],
        ids=[],
    )
    for held_out, tokens in batches:
        states = [state.float() for state in tokens.states]
        fused, _ = bridge.fuse(states)
        features = bridge.mapper.features(fused)
        check_finite(features, "the bridge's fused states")
        check_finite(tokens.targets, "the LLM's embeddings", model.llm.dtype)
        statistics = sums.held_out if held_out else sums.fit
        statistics.add(features, tokens.targets)
        measured = sum(len(ids) for ids in sums.ids)
        if held_out and measured < NEAREST_TOKENS:
            sums.features.append(features)
            sums.ids.append(tokens.ids)
    sums.fit.merge_processes()
    sums.held_out.merge_processes()
    return sums._replace(
        features=_of_all_processes(sums.features, model.device),
        ids=_of_all_processes(sums.ids, model.device),
    )


def _of_all_processes(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors of all processes, in their order; one that had little text may have none."""
    if not is_shared():
        return tensors
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, [tensor.cpu() for tensor in tensors])
    return [tensor.to(device) for share in shares for tensor in share]


class _TextRow(NamedTuple):
    """A text to align."""

    held_out: bool
    text: str
    language: str | None


def aligned_batches(
    model: PalamModel,
    texts: Iterable[str],
    languages: Iterable[str | None] | None = None,
    size: int = 32,
) -> Iterator[AlignedBatch]:
    """Aligned tokens of some texts at a time; every tenth text is held out.

    A text that is longer than the encoder reads is taken in passages, each of which counts as a
    text. Where several processes work together, each gets its share of the texts.

    Args:
        model: see [`align_tokens`].
        texts: of any length; read once, a chunk at a time.
        languages: one per text, for encoders that must be told.
        size: texts at a time.

    Raises:
        PalamError: not one language per text, or a tokenizer without offsets.
    """
    rows = _own_rows(texts, languages, PassageSplitter(model.processor))
    while chunk := list(islice(rows, CHUNK_BATCHES * size)):
        for held_out in (True, False):
            part = [row for row in chunk if row.held_out == held_out]
            part.sort(key=lambda row: -len(row.text))
            for first in range(0, len(part), size):
                batch = part[first : first + size]
                batch_texts = [row.text for row in batch]
                batch_languages = [row.language for row in batch]
                yield AlignedBatch(held_out, align_tokens(model, batch_texts, batch_languages))


def _own_rows(
    texts: Iterable[str],
    languages: Iterable[str | None] | None,
    splitter: PassageSplitter,
) -> Iterator[_TextRow]:
    """This process's share of the texts: ten in a row to each, so that one of them is held out."""
    if isinstance(texts, Sequence):
        texts = checked_texts(texts)
    if isinstance(texts, Sized) and isinstance(languages, Sized):
        _check_lengths(len(texts), len(languages))
    rank = 0
    world_size = 1
    if is_shared():
        rank = distributed.get_rank()
        world_size = distributed.get_world_size()
    if languages is None:
        languages = repeat(None)
    rows = zip(texts, languages, strict=False)
    number = 0  # among this process's passages
    for index, (text, language) in enumerate(rows):
        group = index // HELD_OUT_EVERY
        if group % world_size != rank:
            continue
        for passage in splitter.passages(text):
            yield _TextRow(number % HELD_OUT_EVERY == 0, passage, language)
            number += 1


def _check_lengths(texts: int, languages: int) -> None:
    if texts != languages:
        raise PalamError(f"{texts} texts but {languages} languages; give one language per text")
