"""The one sequence that the LLM reads, joined from tokens and mapped text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from palam.errors import PalamError
from palam.models.processing import IGNORE, TEXT_SLOT


@dataclass
class LLMInputs:
    """The LLM's input: left-padded, with explicit positions. What is made of one has no labels."""

    inputs_embeds: Tensor
    """[batch, length, d_llm]"""
    attention_mask: Tensor
    """[batch, length], 0 for padding."""
    position_ids: Tensor
    """[batch, length], counted from the first real position of each row."""
    labels: Tensor | None = None
    """[batch, length], `-100` where there is no loss; None without answers."""

    @classmethod
    def of_vectors(cls, vectors: Tensor) -> "LLMInputs":
        """Rows of one length, without padding: [batch, length, d_llm]."""
        batch, length = vectors.shape[:2]
        positions = torch.arange(length, device=vectors.device).expand(batch, -1)
        return cls(vectors, torch.ones_like(positions), positions)

    @classmethod
    def stacked(cls, parts: Sequence["LLMInputs"]) -> "LLMInputs":
        """The rows of several inputs of one length, one input after the other."""
        return cls(
            inputs_embeds=torch.cat([part.inputs_embeds for part in parts]),
            attention_mask=torch.cat([part.attention_mask for part in parts]),
            position_ids=torch.cat([part.position_ids for part in parts]),
        )

    def rows(self, index: Tensor | slice, first_column: int = 0) -> "LLMInputs":
        """Some of the rows, from a column on.

        Args:
            index: of the rows; one may be there several times.
            first_column: what is before it, which must be padding, is left out.
        """
        return LLMInputs(
            inputs_embeds=self.inputs_embeds[index, first_column:],
            attention_mask=self.attention_mask[index, first_column:],
            position_ids=self.position_ids[index, first_column:],
        )

    def repeated(self, times: int) -> "LLMInputs":
        """Each row so often, side by side."""
        index = torch.arange(len(self.attention_mask), device=self.attention_mask.device)
        return self.rows(index.repeat_interleave(times))

    def widened(self, width: int) -> "LLMInputs":
        """With more padding on the left, up to a width."""
        missing = width - self.attention_mask.shape[1]
        return LLMInputs(
            inputs_embeds=pad(self.inputs_embeds, (0, 0, missing, 0)),
            attention_mask=pad(self.attention_mask, (missing, 0)),
            position_ids=pad(self.position_ids, (missing, 0)),
        )

    def following(self, vectors: Tensor) -> "LLMInputs":
        """What the LLM reads next where its cache holds this: the mask is over both.

        Args:
            vectors: [batch, n, d_llm], n more in each row.
        """
        num_vectors = vectors.shape[1]
        later = torch.arange(1, num_vectors + 1, device=self.position_ids.device)
        return LLMInputs(
            inputs_embeds=vectors.to(self.inputs_embeds.dtype),
            attention_mask=pad(self.attention_mask, (0, num_vectors), value=1),
            position_ids=self.position_ids[:, -1:] + later,
        )

    def extended(self, vectors: Tensor) -> "LLMInputs":
        """This and what follows it in one, for an LLM that has no cache."""
        following = self.following(vectors)
        return LLMInputs(
            inputs_embeds=torch.cat([self.inputs_embeds, following.inputs_embeds], 1),
            attention_mask=following.attention_mask,
            position_ids=torch.cat([self.position_ids, following.position_ids], 1),
        )

    def copied(self) -> "LLMInputs":
        """With vectors of its own: some LLMs (CTRL) scale what they read in place."""
        return LLMInputs(self.inputs_embeds.clone(), self.attention_mask, self.position_ids)


@dataclass
class MappedText:
    """A batch's texts as the bridge maps them."""

    vectors: Tensor
    """[tokens of all rows, d_llm], row after row."""
    mask: Tensor
    """[batch, text tokens], 1 for the real tokens that the vectors belong to."""
    boundary: Tensor
    """[d_llm], the vector that follows each text."""


class _Placed(NamedTuple):
    """Vectors and where they go, before any padding."""

    rows: Tensor
    """[n], each vector's row in the batch."""
    columns: Tensor
    """[n], each vector's place in its row, from 0."""
    vectors: Tensor
    """[n, d_llm]"""


def build_llm_inputs(
    embed: Callable[[Tensor], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor | None,
    text: MappedText | None,
    labels: Tensor | None = None,
) -> LLMInputs:
    """Join prefix, mapped text, boundary, suffix and answer.

    A row of two prefix tokens, a text of three, one suffix token and an answer of two, beside a
    longer row (`S` is `TEXT_SLOT`, `x` padding of `input_ids`, `B` the boundary)::

        input_ids         x   p1  p2  S                s1  a1  a2
        text                          t1  t2  t3
        inputs_embeds     0   p1  p2  t1  t2  t3  B    s1  a1  a2
        attention_mask    0   1   1   1   1   1   1    1   1   1
        position_ids      0   0   1   2   3   4   5    6   7   8
        labels           -100 …                            a1  a2

    Only real tokens are taken from either side, so it makes no difference where they were padded.

    Args:
        embed: the LLM's own embedding of ids: [n] to [n, d_llm].
        input_ids: [batch, LLM tokens] with `TEXT_SLOT` where the text and the boundary go; they go
            to the front of a row that has no slot.
        attention_mask: of `input_ids`; None is all real.
        text: the mapped texts; None if the LLM reads only ids.
        labels: [batch, LLM tokens] beside `input_ids`, `-100` where there is no loss.

    Raises:
        PalamError: more than one slot in a row, a slot without a text, or a row with nothing to
            read.
    """
    device = input_ids.device
    present = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(device)
    slot = (input_ids == TEXT_SLOT) & present.bool()
    real = present.bool() & ~slot
    _check_slots(slot, text)

    vectors = embed(input_ids[real])
    columns = real.cumsum(1) - 1  # of each token, among its row's own
    lengths = real.sum(1)
    text_parts: list[_Placed] = []
    if text is not None:
        inserted = text.mask.to(device).bool().sum(1) + 1  # and the boundary
        before_text = (slot.cumsum(1) == 0) & slot.any(1, keepdim=True) & real
        text_parts = _place_text(text, before_text.sum(1), vectors.dtype)
        columns = torch.where(before_text, columns, columns + inserted[:, None])
        lengths = lengths + inserted
    if not lengths.all():
        raise PalamError(
            "a row holds nothing to read: its text is empty and nothing stands around it"
        )
    tokens = _Placed(real.nonzero()[:, 0], columns[real], vectors)

    total = int(lengths.max())
    padding = total - lengths  # on the left of each row
    joined_labels = None
    if labels is not None:
        joined_labels = torch.full((len(lengths), total), IGNORE, device=device)
        joined_labels[tokens.rows, tokens.columns + padding[tokens.rows]] = labels.to(device)[real]
    positions = torch.arange(total, device=device) - padding[:, None]
    return LLMInputs(
        inputs_embeds=_join([tokens, *text_parts], padding, total),
        attention_mask=(positions >= 0).long(),
        position_ids=positions.clamp(min=0),
        labels=joined_labels,
    )


def _check_slots(slot: Tensor, text: MappedText | None) -> None:
    """Refuse a row with more slots than texts; `slot` [batch, LLM tokens] is true at slots."""
    allowed = 0 if text is None else 1
    if (slot.sum(1) > allowed).any():
        raise PalamError(
            "a row of input_ids holds the text's slot more than once, or without a text for it"
        )


def _place_text(text: MappedText, start: Tensor, dtype: torch.dtype) -> list[_Placed]:
    """The texts, and the boundary after each.

    Args:
        text: of the batch.
        start: [batch], the column of each row's first text token.
        dtype: of the LLM's embeddings.
    """
    mask = text.mask.to(start.device).bool()
    text_columns = start[:, None] + mask.cumsum(1) - 1
    tokens = _Placed(mask.nonzero()[:, 0], text_columns[mask], text.vectors.to(dtype))
    all_rows = torch.arange(len(mask), device=start.device)
    boundaries = text.boundary.to(dtype).expand(len(mask), -1)
    return [tokens, _Placed(all_rows, start + mask.sum(1), boundaries)]


def _join(parts: list[_Placed], padding: Tensor, total: int) -> Tensor:
    """All vectors in one tensor [batch, total, d_llm], zero where nothing goes.

    Args:
        parts: what goes into it.
        padding: [batch], how many columns to leave free on the left of each row.
        total: columns, padding included.
    """
    rows = torch.cat([part.rows for part in parts])
    columns = torch.cat([part.columns for part in parts])
    vectors = torch.cat([part.vectors for part in parts])
    empty = vectors.new_zeros(len(padding), total, vectors.shape[-1])
    return empty.index_put((rows, columns + padding[rows]), vectors)
