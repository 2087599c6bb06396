"""One row of ids for two encoders that read the same text.

Each token of the second encoder stands behind the token of the first in whose characters it begins,
as the bitwise complement of its id (`~id`, below zero). So a row says what both read and which
tokens belong together, wherever rows of ids are kept, padded or counted::

    first encoder    <s>          br         idge   s         </s>
    second encoder        [CLS]      bridges                        [SEP]
    row              <s> ~[CLS]   br ~bridges idge   s        </s> ~[SEP]

Special tokens at the second encoder's beginning stand behind those at the first one's, or in front
of the row where the first has none.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

OPTIONS = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
"""Of a tokenizer: what [`join_tokens`] needs."""
IN_FRONT = -1
"""The place of what stands in front of the first encoder's tokens."""


class Span(NamedTuple):
    """A range of a text's characters."""

    start: int
    end: int


def text_span(features: Mapping[str, Any]) -> Span:
    """The characters of a text that its tokens hold: of one that was cut, not all.

    Args:
        features: of a text, with `OPTIONS`.
    """
    spans = [span for span in _spans(features) if span is not None]
    if not spans:
        return Span(0, 0)
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def join_tokens(first: Mapping[str, Any], second: Mapping[str, Any], shift: int = 0) -> list[int]:
    """The row of a text's ids.

    Args:
        first, second: the text as each encoder's tokenizer gives it, with `OPTIONS`.
        shift: where the text that the second one got begins in the first one's, in characters.
    """
    places = _places(_spans(first), _spans(second), shift)
    behind: dict[int, list[int]] = defaultdict(list)
    for token_id, place in zip(second["input_ids"], places, strict=True):
        behind[place].append(~token_id)
    row = list(behind[IN_FRONT])
    for place, token_id in enumerate(first["input_ids"]):
        row += [token_id, *behind[place]]
    return row


def _spans(features: Mapping[str, Any]) -> list[Span | None]:
    """The characters of each token; None of a special one."""
    spans = []
    pairs = zip(features["offset_mapping"], features["special_tokens_mask"], strict=True)
    for offsets, special in pairs:
        spans.append(None if special else Span(*offsets))
    return spans


def _places(first: Sequence[Span | None], second: Sequence[Span | None], shift: int) -> list[int]:
    """Behind which of the first encoder's tokens each of the second's stands, never going back."""
    in_text = [place for place, span in enumerate(first) if span is not None]
    starts = [span.start for span in first if span is not None]
    place = len(list(takewhile(lambda span: span is None, first))) - 1
    text_began = False
    places = []
    for span in second:
        if span is not None and in_text:
            number = max(0, bisect(starts, span.start + shift) - 1)
            place = max(place, in_text[number])
            text_began = True
        elif text_began:  # a special token at the end
            place = len(first) - 1
        places.append(place)
    return places


# ---------------------------------------------------------------------- batches
def first_mask(ids: Tensor, mask: Tensor) -> Tensor:
    """Where the first encoder's real tokens are in padded rows: 1 there, 0 elsewhere.

    Args:
        ids, mask: rows and what of them is real [batch, tokens].
    """
    return ((ids >= 0) & mask.bool()).to(mask.dtype)


class PaddedTokens(NamedTuple):
    """What one encoder reads of a batch."""

    ids: Tensor
    """[batch, tokens], padded on the right."""
    mask: Tensor
    """[batch, tokens], 1 for real tokens."""


class SplitTokens(NamedTuple):
    """What two encoders read of a batch."""

    first: PaddedTokens
    second: PaddedTokens
    pooling: "Pooling"
    """From the second one's tokens to the first one's."""


def split_tokens(ids: Tensor, mask: Tensor, paddings: tuple[int, int]) -> SplitTokens:
    """Take rows of two encoders' ids apart.

    Args:
        ids, mask: rows of [`join_tokens`] and what of them is real [batch, tokens].
        paddings: the id with which each encoder's rows are padded.
    """
    of_first = first_mask(ids, mask).bool()
    of_second = mask.bool() & ~of_first
    return SplitTokens(
        _padded(ids, of_first, paddings[0]),
        _padded(~ids, of_second, paddings[1]),
        Pooling.of(of_first, of_second),
    )


def _padded(ids: Tensor, kept: Tensor, padding: int) -> PaddedTokens:
    """The kept ids of each row, in their order, from the left."""
    width = max(1, int(kept.sum(1).max()))
    order = (~kept).long().argsort(dim=1, stable=True)[:, :width]
    mask = kept.gather(1, order)
    return PaddedTokens(ids.gather(1, order).masked_fill(~mask, padding), mask.long())


class Pooling(NamedTuple):
    """For each token of the first encoder, a range of the second one's tokens."""

    start: Tensor
    """[tokens of the first]: among the second's tokens of all rows, row after row."""
    end: Tensor
    """[tokens of the first]; as `start` where there is nothing to pool."""

    @classmethod
    def of(cls, of_first: Tensor, of_second: Tensor) -> "Pooling":
        """The tokens behind each; where there are none, the last before it in the row, which goes
        on through it, or else the next.

        Args:
            of_first, of_second: whose token each position holds [batch, tokens].
        """
        so_far = of_second.flatten().long().cumsum(0).view_as(of_second)
        row_end = so_far[:, -1:]
        row_start = row_end - of_second.sum(1, keepdim=True)
        start = so_far
        # Up to the next token of the first encoder, or the row's end.
        upto = torch.where(of_first, so_far, row_end)
        following = upto.flip(1).cummin(1).values.flip(1)
        end = torch.cat([following[:, 1:], row_end], 1)
        has_none = end <= start
        is_before = start > row_start
        nearest = torch.where(is_before, start - 1, row_start)
        exists = row_end > row_start
        start = torch.where(has_none, nearest, start)
        end = torch.where(has_none, nearest + exists.long(), end)
        return cls(start[of_first], end[of_first])

    def pool(self, states: Tensor) -> Tensor:
        """The mean over each range; 0 where it is empty.

        Args:
            states: of the second encoder's tokens of all rows [tokens, d].

        Returns:
            [tokens of the first, d]
        """
        lengths = self.end - self.start
        owners = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        begins = (lengths.cumsum(0) - lengths)[owners]
        members = self.start[owners] + torch.arange(len(owners), device=lengths.device) - begins
        sums = states.new_zeros(len(lengths), states.shape[-1], dtype=torch.float32)
        sums.index_add_(0, owners, states[members].float())
        return (sums / lengths.clamp(min=1)[:, None]).to(states.dtype)
