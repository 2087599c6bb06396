"""What the LLM has read of the answers that run together, so that the next token can be had.

Rows are padded on the left. Others join them, and any of them can leave, between two passes. Where
an LLM's cache can be handled so it is kept ([`CachedContext`]); elsewhere all is read again for
each token ([`RereadContext`]), which is slow and right. transformers' own continuous batching
(`ContinuousBatchingManager`, 5.24) takes ids alone, in `add_request` as in `generate_batch`, and so
cannot read mapped text.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from palam.models.backbones.llm import rounds_much
from palam.models.backbones.loading import LIBRARY_ERRORS
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs

PROBE_LENGTHS = (5, 11)
"""Tokens of the two texts by which an LLM's cache is tried."""
PROBE_STEPS = 3
TOLERANCE = 1e-3
"""How far logits may be from those of plain reading, relative to the largest, at least to 1."""
COARSE_TOLERANCE = 5e-2
"""How far on average, relative to their own average, in 16 bits or fewer."""


class Context(Protocol):
    """What the LLM has read, row by row."""

    model: PalamModel

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def width(self) -> int:
        """Columns, padding included."""
        ...

    def start(self, inputs: LLMInputs) -> Tensor:
        """Read the rows' beginnings; returns the logits [rows, vocabulary] of what follows."""
        ...

    def extend(self, ids: Sequence[int]) -> Tensor:
        """Read one more token in each row; returns the logits [rows, vocabulary].

        If it fails, the context is as it was before.
        """
        ...

    def join(self, other: Self) -> None:
        """Take another context's rows in, after the present ones."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """A context of some of the rows, without columns that they have all as padding."""
        ...


class CachedContext:
    """A [`Context`] that keeps the LLM's keys and values.

    The mask limits what layers with a sliding window see, so that every layer's keys can be kept
    whole, in columns that are the same in all layers.
    """

    def __init__(self, model: PalamModel) -> None:
        self.model = model
        self._cache: Any = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self._positions = torch.zeros(0, dtype=torch.long, device=model.device)

    @property
    def rows(self) -> int:
        """See [`Context`]."""
        return len(self._mask)

    @property
    def width(self) -> int:
        """See [`Context`]."""
        return self._mask.shape[1]

    def start(self, inputs: LLMInputs) -> Tensor:
        """See [`Context`]."""
        output = self.model.run_llm(inputs, 1, use_cache=True, cache=self._cache)
        self._mask = inputs.attention_mask
        self._positions = inputs.position_ids[:, -1]
        return _last_logits(output.logits)

    def extend(self, ids: Sequence[int]) -> Tensor:
        """See [`Context`]."""
        width = self.width
        tokens = torch.tensor(ids, device=self.model.device)[:, None]
        mask = pad(self._mask, (0, 1), value=1)
        positions = self._positions + 1
        inputs = LLMInputs(
            inputs_embeds=self.model.embed(tokens),
            attention_mask=mask,
            position_ids=positions[:, None],
        )
        try:
            output = self.model.run_llm(inputs, 1, use_cache=True, cache=self._cache)
        except BaseException:
            self._cut_to(width)
            raise
        self._mask = mask
        self._positions = positions
        return _last_logits(output.logits)

    def join(self, other: Self) -> None:
        """See [`Context`]."""
        width = max(self.width, other.width)
        for layer, other_layer in zip(self._cache.layers, other._cache.layers, strict=True):
            if layer.keys is None:  # it shares another layer's
                continue
            layer.keys = _stacked(layer.keys, other_layer.keys, width)
            layer.values = _stacked(layer.values, other_layer.values, width)
        masks = [pad(mask, (width - mask.shape[1], 0)) for mask in (self._mask, other._mask)]
        self._mask = torch.cat(masks)
        self._positions = torch.cat([self._positions, other._positions])

    def select(self, rows: Sequence[int]) -> Self:
        """See [`Context`]."""
        index = torch.tensor(rows, device=self._mask.device)
        mask = self._mask[index]
        first = _first_column(mask)
        part = type(self)(self.model)
        part._mask = mask[:, first:]
        part._positions = self._positions[index]
        for number, layer in enumerate(self._cache.layers):
            if layer.keys is None:
                continue
            of_layer = index.to(layer.keys.device)  # the LLM may be on several devices
            keys = layer.keys[of_layer, :, first:]
            values = layer.values[of_layer, :, first:]
            part._cache.update(keys, values, number)
        return part

    def _cut_to(self, width: int) -> None:
        """Undo a pass that has failed: some layers hold its column already."""
        for layer in self._cache.layers:
            if layer.keys is not None and layer.keys.shape[-2] > width:
                layer.keys = layer.keys[..., :width, :]
                layer.values = layer.values[..., :width, :]


class RereadContext:
    """A [`Context`] that keeps the vectors alone: the LLM reads them again for each token."""

    def __init__(self, model: PalamModel) -> None:
        self.model = model
        self._inputs = LLMInputs.of_vectors(torch.zeros(0, 0, 0, device=model.device))

    @property
    def rows(self) -> int:
        """See [`Context`]."""
        return len(self._inputs.attention_mask)

    @property
    def width(self) -> int:
        """See [`Context`]."""
        return self._inputs.attention_mask.shape[1]

    def start(self, inputs: LLMInputs) -> Tensor:
        """See [`Context`]."""
        self._inputs = inputs
        return self._read(inputs)

    def extend(self, ids: Sequence[int]) -> Tensor:
        """See [`Context`]."""
        tokens = torch.tensor(ids, device=self.model.device)[:, None]
        inputs = self._inputs.extended(self.model.embed(tokens))
        logits = self._read(inputs)
        self._inputs = inputs
        return logits

    def join(self, other: Self) -> None:
        """See [`Context`]."""
        width = max(self.width, other.width)
        parts = [context._inputs.widened(width) for context in (self, other)]
        self._inputs = LLMInputs.stacked(parts)

    def select(self, rows: Sequence[int]) -> Self:
        """See [`Context`]."""
        mask = self._inputs.attention_mask
        index = torch.tensor(rows, device=mask.device)
        part = type(self)(self.model)
        part._inputs = self._inputs.rows(index, _first_column(mask[index]))
        return part

    def _read(self, inputs: LLMInputs) -> Tensor:
        return _last_logits(self.model.run_llm(inputs.copied(), 1).logits)


ContextClass = type[CachedContext] | type[RereadContext]


def left_padded(rows: Sequence[Tensor]) -> LLMInputs:
    """The LLM's input of rows of vectors, each [length, d_llm] with at least one."""
    width = max(len(row) for row in rows)
    padding = [width - len(row) for row in rows]
    device = rows[0].device
    positions = torch.arange(width, device=device) - torch.tensor(padding, device=device)[:, None]
    padded = [pad(row, (0, 0, count, 0)) for row, count in zip(rows, padding, strict=True)]
    return LLMInputs(
        inputs_embeds=torch.stack(padded),
        attention_mask=(positions >= 0).long(),
        position_ids=positions.clamp(min=0),
    )


@torch.no_grad()
def suitable_context(model: PalamModel) -> ContextClass:
    """The faster kind of context, if this LLM gives the logits of plain reading with it.

    Two texts of random ids are read, the second joins the first after a pass, and the first leaves.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.llm.get_input_embeddings().weight.shape[0]
    texts = [
        torch.randint(vocabulary, (length + PROBE_STEPS,), generator=generator)
        for length in PROBE_LENGTHS
    ]
    try:
        expected = _probe(model, RereadContext, texts)
        actual = _probe(model, CachedContext, texts)
    except LIBRARY_ERRORS:  # another kind of cache, or none
        return RereadContext
    return CachedContext if _agree(model, actual, expected) else RereadContext


def _probe(model: PalamModel, context_class: ContextClass, texts: Sequence[Tensor]) -> Tensor:
    """The logits along a short run with a join and a leave [passes, vocabulary]."""
    first, second = [text.to(model.device) for text in texts]
    context: Context = context_class(model)
    length = PROBE_LENGTHS[0]
    logits = [context.start(left_padded([model.embed(first[:length])]))]
    logits.append(context.extend([int(first[length])]))
    other: Context = context_class(model)
    length = PROBE_LENGTHS[1]
    logits.append(other.start(left_padded([model.embed(second[:length])])))
    context.join(other)
    logits.append(context.extend([int(first[PROBE_LENGTHS[0] + 1]), int(second[length])]))
    context = context.select([1])
    logits.append(context.extend([int(second[length + 1])]))
    return torch.cat(logits)


def _agree(model: PalamModel, actual: Tensor, expected: Tensor) -> bool:
    """Whether logits differ by rounding alone."""
    difference = (actual - expected).abs()
    if not rounds_much(model.llm):
        return bool(difference.max() <= TOLERANCE * expected.abs().max().clamp(min=1))
    return bool(difference.mean() <= COARSE_TOLERANCE * expected.abs().mean())


def _last_logits(logits: Tensor) -> Tensor:
    return logits[:, -1].float()


def _first_column(mask: Tensor) -> int:
    """The first column that is not padding in every row."""
    return int(mask.any(0).long().argmax())


def _stacked(states: Tensor, others: Tensor, width: int) -> Tensor:
    """Keys or values [rows, heads, columns, size] of two batches in one, padded on the left."""
    padded = [pad(part, (0, 0, width - part.shape[-2], 0)) for part in (states, others)]
    return torch.cat(padded)
