"""One row of ids for two encoders: joined by characters, taken apart, pooled."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from palam.models.joined_tokens import (
    first_mask,
    join_tokens,
    split_tokens,
    text_span,
)

PADDINGS = (1, 0)


def tokens(*spans, ids=None):
    """A tokenised text as tokenizers give it; a special token is None."""
    return {
        "input_ids": list(ids or range(10, 10 + len(spans))),
        "offset_mapping": [span or (0, 0) for span in spans],
        "special_tokens_mask": [int(span is None) for span in spans],
    }


def test_each_token_stands_behind_the_one_in_which_it_begins():
    first = tokens(None, (0, 2), (2, 6), (6, 7), None)
    second = tokens(None, (0, 1), (1, 5), (5, 7), None, ids=[1, 2, 3, 4, 5])
    assert join_tokens(first, second) == [10, ~1, 11, ~2, ~3, 12, ~4, 13, 14, ~5]


def test_special_tokens_without_a_counterpart():
    first = tokens((0, 3), (4, 6), None)  # as T5 has them
    second = tokens(None, (0, 3), (4, 6), ids=[1, 2, 3])
    assert join_tokens(first, second) == [~1, 10, ~2, 11, ~3, 12]


def test_the_second_encoder_may_get_a_part_of_the_text():
    first = tokens((5, 8), (9, 12))
    assert text_span(first) == (5, 12)
    assert join_tokens(first, tokens((0, 3), (4, 7), ids=[1, 2]), shift=5) == [10, ~1, 11, ~2]


def test_texts_without_characters():
    nothing = tokens(None, None)
    assert text_span(nothing) == (0, 0)
    assert join_tokens(nothing, tokens(None, None, ids=[1, 2])) == [10, 11, ~1, ~2]
    assert join_tokens(tokens(), tokens()) == []


@st.composite
def tokenisations(draw, characters=12):
    """A text's characters, cut into tokens, some left out, between special tokens or not."""
    cuts = sorted(draw(st.sets(st.integers(1, characters - 1))))
    edges = [0, *cuts, characters]
    spans = list(pairwise(edges))
    kept = [span for span in spans if draw(st.integers(0, 5))]
    leading = [None] * draw(st.integers(0, 2))
    trailing = [None] * draw(st.integers(0, 1))
    return tokens(*leading, *kept, *trailing)


@given(st.lists(st.tuples(tokenisations(), tokenisations()), min_size=1, max_size=4))
def test_both_rows_come_out_again_and_belong_together(pairs):
    rows = [join_tokens(first, second) for first, second in pairs]
    width = max(1, *map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    split = split_tokens(ids, mask, PADDINGS)
    for place, (first, second) in enumerate(pairs):
        for tokenised, padded in ((first, split.first), (second, split.second)):
            real = padded.mask[place].bool()
            assert padded.ids[place][real].tolist() == tokenised["input_ids"]
    assert (split.first.ids[split.first.mask == 0] == PADDINGS[0]).all()
    assert (split.second.ids[split.second.mask == 0] == PADDINGS[1]).all()
    assert first_mask(ids, mask).sum() == split.first.mask.sum()
    states = torch.randn(int(split.second.mask.sum()), 3)
    expected = pooled_plainly(rows, states)
    assert torch.allclose(split.pooling.pool(states), expected, atol=1e-6)


def pooled_plainly(rows, states):
    """Token by token: the mean of what stands behind, or the last before, or the next."""
    pooled = []
    used = 0
    for row in rows:
        own = [states[used + number] for number in range(sum(token < 0 for token in row))]
        used += len(own)
        seen = 0
        for place, token in enumerate(row):
            if token < 0:
                seen += 1
                continue
            behind = 0
            while place + 1 + behind < len(row) and row[place + 1 + behind] < 0:
                behind += 1
            if behind:
                pooled.append(torch.stack(own[seen : seen + behind]).mean(0))
            elif own:
                pooled.append(own[max(0, seen - 1)])
            else:
                pooled.append(torch.zeros(states.shape[1]))
    return torch.stack(pooled) if pooled else states.new_zeros(0, states.shape[1])
