"""The one sequence that the LLM reads, joined from tokens and mapped text."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.processing import IGNORE, TEXT_SLOT


@dataclass
class LLMInputs:
    """The LLM's input: left-padded, with explicit positions."""

    inputs_embeds: Tensor
    """[batch, length, d_llm]"""
    attention_mask: Tensor
    """[batch, length], 0 for padding."""
    position_ids: Tensor
    """[batch, length], counted from the first real position of each row."""
    labels: Tensor | None
    """[batch, length], `-100` where there is no loss; None without answers."""


@dataclass
class MappedText:
    """A batch's texts as the bridge maps them."""

    vectors: Tensor
    """[tokens of all rows, d_llm], row after row."""
    mask: Tensor
    """[batch, text tokens], 1 for the real tokens that the vectors belong to."""
    boundary: Tensor
    """[d_llm], the vector that follows each text."""


def build_llm_inputs(
    embed: Callable[[Tensor], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor | None,
    text: MappedText | None,
    labels: Tensor | None = None,
) -> LLMInputs:
    """Join prefix, mapped text, boundary, suffix and answer.

    A row of two prefix tokens, a text of three, one suffix token and an answer of two, beside a
    longer row (`S` is `TEXT_SLOT`, `x` padding of `input_ids`):

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
    known = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(device)
    slot = (input_ids == TEXT_SLOT) & known.bool()
    allowed_slots = 0 if text is None else 1
    if (slot.sum(1) > allowed_slots).any():
        raise PalamError(
            "a row of input_ids holds the text's slot more than once, or without a text for it"
        )
    real = known.bool() & ~slot
    token_rows = real.nonzero()[:, 0]
    token_columns = (real.cumsum(1) - 1)[real]  # of each token, among its row's own
    token_vectors = embed(input_ids[real])
    length = real.sum(1)

    if text is None:
        rows, columns, vectors = token_rows, token_columns, token_vectors
    else:
        text_mask = text.mask.to(device).bool()
        inserted = text_mask.sum(1) + 1  # and the boundary
        before_slot = (slot.cumsum(1) == 0) & slot.any(1, keepdim=True) & real
        start = before_slot.sum(1)  # column of each row's first text token
        shifted = (real.cumsum(1) - 1) + inserted[:, None]
        token_columns = torch.where(before_slot, real.cumsum(1) - 1, shifted)[real]
        text_rows = text_mask.nonzero()[:, 0]
        text_columns = (start[:, None] + text_mask.cumsum(1) - 1)[text_mask]
        boundary_rows = torch.arange(len(text_mask), device=device)
        boundary_columns = start + inserted - 1
        rows = torch.cat([token_rows, text_rows, boundary_rows])
        columns = torch.cat([token_columns, text_columns, boundary_columns])
        boundaries = text.boundary.to(token_vectors.dtype).expand(len(text_mask), -1)
        vectors = torch.cat([token_vectors, text.vectors.to(token_vectors.dtype), boundaries])
        length = length + inserted
    if not length.all():
        raise PalamError(
            "a row holds nothing to read: its text is empty and nothing stands around it"
        )

    total = int(length.max())
    padding = total - length  # on the left of each row
    places = (rows, columns + padding[rows])
    empty = vectors.new_zeros(len(length), total, vectors.shape[-1])
    joined_labels = None
    if labels is not None:
        joined_labels = torch.full((len(length), total), IGNORE, device=device)
        token_places = (token_rows, token_columns + padding[token_rows])
        joined_labels[token_places] = labels.to(device)[real]
    positions = torch.arange(total, device=device) - padding[:, None]
    return LLMInputs(
        inputs_embeds=empty.index_put(places, vectors),
        attention_mask=(positions >= 0).long(),
        position_ids=positions.clamp(min=0),
        labels=joined_labels,
    )
