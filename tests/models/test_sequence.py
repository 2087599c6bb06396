"""The LLM's input, recomputed row by row with Python lists."""

import itertools

import pytest
import torch
from helpers import refusal

from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.sequence import LLMInputs, MappedText, build_llm_inputs

WIDTH = 4
TABLE = torch.arange(100 * WIDTH, dtype=torch.float32).view(100, WIDTH)
BOUNDARY = torch.full((WIDTH,), -7.0)


def embed(ids):
    assert ((ids >= 0) & (ids < len(TABLE))).all()  # no slot and no padding is ever embedded
    return TABLE[ids]


def mapped_text(*rows):
    """Texts by their attention masks; the vectors of the real tokens are -1, -2, ..."""
    mask = torch.tensor(rows)
    count = int(mask.sum())
    vectors = -torch.arange(1.0, count + 1)[:, None].expand(count, WIDTH)
    return MappedText(vectors, mask, BOUNDARY)


def plain_row(ids, mask, labels, text_vectors):
    """One row's vectors and labels, not padded; `text_vectors` is None if there is no text."""
    text = []
    if text_vectors is not None:
        text = [(vector, IGNORE) for vector in [*text_vectors, BOUNDARY]]
    parts, has_slot = [], False
    for token, present, label in zip(ids, mask, labels, strict=True):
        if not present:
            continue
        if token == TEXT_SLOT:
            has_slot = True
            parts += text
        else:
            parts.append((TABLE[token], label))
    return parts if has_slot else text + parts


def check(ids, mask=None, text=None, labels=None):
    """Compare `build_llm_inputs` with each row's own plain computation."""
    inputs = build_llm_inputs(
        embed,
        torch.tensor(ids, dtype=torch.long),
        None if mask is None else torch.tensor(mask),
        text,
        None if labels is None else torch.tensor(labels),
    )
    mask = mask or [[1] * len(row) for row in ids]
    row_labels = labels or [[IGNORE] * len(row) for row in ids]
    text_rows = [None] * len(ids)
    if text is not None:
        text_rows = text.vectors.split(text.mask.bool().sum(1).tolist())
    rows = [plain_row(*row) for row in zip(ids, mask, row_labels, text_rows, strict=True)]
    length = max(map(len, rows))
    assert inputs.inputs_embeds.shape == (len(rows), length, WIDTH)
    for index, row in enumerate(rows):
        padding = length - len(row)
        vectors = torch.stack([vector for vector, _ in row])
        assert not inputs.inputs_embeds[index, :padding].any()
        assert torch.equal(inputs.inputs_embeds[index, padding:], vectors)
        assert inputs.attention_mask[index].tolist() == [0] * padding + [1] * len(row)
        assert inputs.position_ids[index].tolist() == [0] * padding + list(range(len(row)))
        if labels is not None:
            expected = [IGNORE] * padding + [label for _, label in row]
            assert inputs.labels[index].tolist() == expected
    if labels is None:
        assert inputs.labels is None
    return inputs


S = TEXT_SLOT


def test_the_row_that_the_docstring_draws():
    ids = [[99, 1, 2, S, 3, 8, 9], [1, 2, 4, S, 3, 8, 9]]
    mask = [[0, 1, 1, 1, 1, 1, 1], [1] * 7]
    labels = [[IGNORE] * 5 + [8, 9]] * 2
    inputs = check(ids, mask, mapped_text([1, 1, 1], [1, 1, 1]), labels)
    assert inputs.inputs_embeds.shape[1] == 10
    assert inputs.position_ids[0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "text", [([1, 1, 0], [1, 0, 0]), ([0, 1, 1], [0, 0, 1]), ([1, 0, 1], [0, 1, 0])]
)
@pytest.mark.parametrize("place", ["left", "right", "middle"])
def test_padding_anywhere(place, text):
    ids = {
        "left": [[1, S, 2, 3, 4], [99, 99, S, 5, 6]],
        "right": [[1, S, 2, 3, 4], [S, 5, 6, 99, 99]],
        "middle": [[1, S, 2, 3, 4], [S, 99, 5, 99, 6]],
    }[place]
    mask = [[int(token != 99) for token in row] for row in ids]
    # A padded label is never taken, whatever it is.
    labels = [[IGNORE, IGNORE, 2, IGNORE, 4], [5 if token == 99 else token for token in ids[1]]]
    check(ids, mask, mapped_text(*text), labels)


def test_every_mask_of_a_short_row():
    text = mapped_text([1, 1, 0])
    for mask in itertools.product([0, 1], repeat=4):
        check([[1, S, 2, 3]], [list(mask)], text, [[IGNORE, IGNORE, IGNORE, 3]])


def test_a_row_without_a_slot_begins_with_its_text():
    inputs = check([[1, S, 2], [3, 4, 5]], text=mapped_text([1, 1], [1, 0]))
    assert inputs.inputs_embeds[1, 0, 0] == -3  # the second row's one text token
    check([[3, 4]], [[1, 1]], mapped_text([1, 1]), [[IGNORE, 4]])


def test_a_padded_slot_is_none():
    inputs = check([[S, 1, S, 2]], [[0, 1, 1, 1]], mapped_text([1, 1]))
    assert inputs.inputs_embeds[0, :, 0].tolist() == [4, -1, -2, -7, 8]


def test_an_empty_text_is_its_boundary():
    check([[1, S, 2], [S, 3, 4]], text=mapped_text([0, 0], [1, 1]))
    check([[S], [S]], text=mapped_text([0], [1]))


def test_without_a_text_the_ids_are_read_alone():
    check([[1, 2, 3], [4, 5, 6]], [[1, 1, 1], [0, 1, 0]])
    check([[1, 2, 3]], labels=[[IGNORE, 2, 3]])


def test_the_text_alone():
    check([[], []], text=mapped_text([1, 1, 1], [0, 1, 0]))


def test_the_embeddings_decide_the_dtype_and_gradients_reach_all_parts():
    text = mapped_text([1, 1])
    text.vectors = text.vectors.clone().requires_grad_()
    text.boundary = BOUNDARY.clone().requires_grad_()
    ids = torch.tensor([[1, TEXT_SLOT, 2]])
    inputs = build_llm_inputs(lambda ids: embed(ids).bfloat16(), ids, None, text)
    assert inputs.inputs_embeds.dtype == torch.bfloat16
    (inputs.inputs_embeds.float() * torch.arange(5.0)[:, None]).sum().backward()
    assert text.vectors.grad[:, 0].tolist() == [1, 2]
    assert text.boundary.grad.tolist() == [3] * WIDTH


def test_what_cannot_be_joined():
    def build(ids, mask=None, text=None):
        mask = None if mask is None else torch.tensor(mask)
        return build_llm_inputs(embed, torch.tensor(ids), mask, text)

    assert "more than once" in refusal(build, [[S, 1, S]], None, mapped_text([1]))
    assert "without a text" in refusal(build, [[1, S]])
    assert "nothing to read" in refusal(build, [[1, 2], [3, 4]], [[1, 1], [0, 0]])


# ------------------------------------------------------------------ what is made of an input
def two_rows():
    """Rows of three and of one vectors, the second padded."""
    mask = torch.tensor([[1, 1, 1], [0, 0, 1]])
    return LLMInputs(TABLE[:6].view(2, 3, WIDTH), mask, torch.tensor([[0, 1, 2], [0, 0, 0]]))


def test_what_follows_an_input_in_a_cache_and_in_one():
    inputs = two_rows()
    more = TABLE[10:14].view(2, 2, WIDTH)
    following, extended = inputs.following(more), inputs.extended(more)
    assert torch.equal(following.inputs_embeds, more)
    assert following.position_ids.tolist() == [[3, 4], [1, 2]]
    mask = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert following.attention_mask.tolist() == extended.attention_mask.tolist() == mask
    assert torch.equal(extended.inputs_embeds, torch.cat([inputs.inputs_embeds, more], 1))
    assert extended.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    # One at a time it is the same.
    stepwise = inputs.extended(more[:, :1]).extended(more[:, 1:])
    assert stepwise.position_ids.tolist() == extended.position_ids.tolist()


def test_rows_are_taken_repeated_and_joined():
    inputs = two_rows()
    (second,) = inputs.rows(torch.tensor([1]), first_column=2).inputs_embeds
    assert torch.equal(second, inputs.inputs_embeds[1, 2:])
    repeated = inputs.repeated(2)
    assert torch.equal(repeated.inputs_embeds, inputs.inputs_embeds[[0, 0, 1, 1]])
    assert repeated.attention_mask.tolist() == inputs.attention_mask[[0, 0, 1, 1]].tolist()
    alone = LLMInputs.of_vectors(second[None])
    assert alone.position_ids.tolist() == [[0]]
    stacked = LLMInputs.stacked([inputs, alone.widened(3)])
    assert stacked.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert stacked.position_ids.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_a_copy_can_be_scaled_in_place():
    inputs = two_rows()
    inputs.copied().inputs_embeds.mul_(2)
    assert torch.equal(inputs.inputs_embeds, two_rows().inputs_embeds)
