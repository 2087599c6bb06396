"""Tokens of two tokenisations matched by characters, against plain counting."""

import pytest
import tiny
import torch
from plain_ridge import TEXTS

from palam.alignment.token_alignment import align_tokens, overlap_shares, without_spaces

# WordPiece, Unigram, BPE, Unigram
ENCODERS = ("bert", "xlmr", "nllb", "t5")


def ranges(*pairs):
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    {
        "the same": ([(0, 3), (3, 5)], [(0, 3), (3, 5)], [[1, 0], [0, 1]]),
        "one in two": ([(0, 4)], [(0, 3), (3, 6)], [[3 / 4, 1 / 4]]),
        "two in one": ([(0, 2), (2, 6)], [(0, 6)], [[1], [1]]),
        "bytes of one character": (
            [(1, 2)],
            [(0, 1), (1, 2), (1, 2), (1, 2)],
            [[0, 1 / 3, 1 / 3, 1 / 3]],
        ),
        "ours are bytes": ([(0, 1), (0, 1)], [(0, 1), (1, 2)], [[1, 0], [1, 0]]),
        "a lone space within theirs": ([(3, 4), (4, 7)], [(0, 3), (3, 7)], [[0, 1], [0, 1]]),
        "a lone space that they leave out": ([(3, 4), (4, 7)], [(0, 3), (4, 7)], [[0, 0], [0, 1]]),
        "an empty range of ours": ([(0, 0), (2, 2), (0, 4)], [(0, 4)], [[0], [0], [1]]),
        "an empty range of theirs": ([(0, 4)], [(0, 0), (2, 2), (0, 4)], [[0, 0, 1]]),
        "no overlap": ([(0, 2)], [(2, 4)], [[0]]),
    }.values(),
)
def test_a_token_is_shared_out_by_overlap(ours, theirs, expected):
    shares = overlap_shares(ranges(*ours), ranges(*theirs))
    torch.testing.assert_close(shares, torch.tensor(expected).double())


@pytest.mark.parametrize(
    ("text", "offsets", "expected"),
    [
        ("a home", [(0, 1), (1, 6), (2, 6)], [(0, 1), (2, 6), (2, 6)]),
        ("a  b", [(1, 2), (1, 3), (0, 3)], [(2, 2), (3, 3), (0, 1)]),
        ("ක\u200d ර", [(0, 2), (0, 3)], [(0, 2), (0, 2)]),
        ("", [], []),
    ],
)
def test_spaces_at_the_ends_of_a_token_do_not_count(text, offsets, expected):
    trimmed = without_spaces(text, offsets)
    empty = trimmed[:, 0] == trimmed[:, 1]
    visible = [tuple(pair) for pair in trimmed[~empty].tolist()]
    assert visible == [(start, end) for start, end in expected if start < end]
    assert empty.tolist() == [start == end for start, end in expected]


def test_nothing_to_share_out():
    assert overlap_shares(ranges((0, 2)), ranges()).shape == (1, 0)
    assert overlap_shares(ranges(), ranges((0, 2))).shape == (0, 1)


@pytest.mark.parametrize("llm", ["llama", "gemma3"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_targets_are_the_llms_embeddings_of_the_same_characters(tiny_model, encoder, llm):
    """Against a computation character by character."""
    model = tiny_model(encoder, llm)
    text = "The dog 🙂 මම ගෙදර යනවා."
    encoder_tokenizer = model.processor.encoder_tokenizer
    llm_tokenizer = model.processor.llm_tokenizer
    offsets = {"return_offsets_mapping": True}
    ours = encoder_tokenizer(text, **offsets, return_special_tokens_mask=True)
    theirs = llm_tokenizer(text, **offsets, add_special_tokens=False)
    owners = []  # of each character, the LLM's tokens that hold it
    for place in range(len(text)):
        ranges_of_llm = enumerate(theirs["offset_mapping"])
        owners.append([j for j, (start, end) in ranges_of_llm if start <= place < end])
    vectors = model.embed(torch.tensor(theirs["input_ids"]))
    aligned, targets = [], []
    for i, (start, end) in enumerate(ours["offset_mapping"]):
        visible = [place for place in range(start, end) if not text[place].isspace()]
        held_by = [j for place in visible for j in owners[place]]
        if held_by and not ours["special_tokens_mask"][i]:
            aligned.append(i)
            targets.append(vectors[held_by].mean(0))
    tokens = align_tokens(model, [text])
    assert set(tokens.ids.tolist()) <= set(theirs["input_ids"])
    assert any(len(owner) > 1 for owner in owners), "byte-level pieces of one character"
    assert len(aligned) < len(ours["input_ids"]), "special tokens are left out"
    torch.testing.assert_close(tokens.targets, torch.stack(targets))
    ids = torch.tensor([ours["input_ids"]])
    layers = model.encode(ids, torch.ones(ids.shape))
    assert len(tokens.states) == tiny.LAYERS
    for state, layer in zip(tokens.states, layers, strict=True):
        torch.testing.assert_close(state, layer[aligned])


def test_a_batch_gives_the_rows_of_its_texts(tiny_model):
    model = tiny_model("xlmr")
    texts = ["", TEXTS[0], "\ud83d lone", " ", "A", TEXTS[-1], "word " * 400]
    together = align_tokens(model, texts)
    alone = [align_tokens(model, [text]) for text in texts]
    expected_targets = torch.cat([tokens.targets for tokens in alone])
    torch.testing.assert_close(together.targets, expected_targets)
    for layer, state in enumerate(together.states):
        expected = torch.cat([tokens.states[layer] for tokens in alone])
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)
    assert len(alone[0].targets) == 0
    assert not model.processor.stats, "aligning is not reading"
