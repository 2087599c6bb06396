import pytest
import tiny
import torch
from plain_ridge import TEXTS

from palam.alignment.token_alignment import align_tokens, overlap_shares, without_spaces

ENCODERS = {
    "bert": "WordPiece",
    "xlmr": "Unigram",
    "nllb": "BPE",
    "t5": "Unigram",
}  # the kinds of tokenizer


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
    torch.testing.assert_close(
        overlap_shares(ranges(*ours), ranges(*theirs)), torch.tensor(expected).double()
    )


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("a home", [(0, 1), (1, 6), (2, 6)], [(0, 1), (2, 6), (2, 6)]),
        ("a  b", [(1, 2), (1, 3), (0, 3)], [(2, 2), (3, 3), (0, 1)]),
        ("ක\u200d ර", [(0, 2), (0, 3)], [(0, 2), (0, 2)]),
        ("", [], []),
    ],
)
def test_spaces_at_the_ends_of_a_token_do_not_count(text, given, expected):
    found = without_spaces(text, given)
    empty = found[:, 0] == found[:, 1]
    assert [tuple(pair) for pair in found[~empty].tolist()] == [
        pair for pair in expected if pair[0] < pair[1]
    ]
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
    ours = model.processor.encoder_tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    theirs = model.processor.llm_tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True
    )
    owners = [
        [j for j, (a, b) in enumerate(theirs["offset_mapping"]) if a <= c < b]
        for c in range(len(text))
    ]
    vectors = model.embed(torch.tensor(theirs["input_ids"]))
    kept, targets = [], []
    for i, (start, end) in enumerate(ours["offset_mapping"]):
        found = [j for c in range(start, end) if not text[c].isspace() for j in owners[c]]
        if found and not ours["special_tokens_mask"][i]:
            kept.append(i)
            targets.append(vectors[found].mean(0))
    states, found, ids = align_tokens(model, [text])
    assert set(ids.tolist()) <= set(theirs["input_ids"])
    assert any(len(owner) > 1 for owner in owners), "byte-level pieces of one character"
    assert len(kept) < len(ours["input_ids"]), "special tokens are left out"
    torch.testing.assert_close(found, torch.stack(targets))
    everything = model.encode(
        torch.tensor([ours["input_ids"]]), torch.ones(1, len(ours["input_ids"]))
    )
    assert len(states) == tiny.LAYERS
    for state, whole in zip(states, everything, strict=True):
        torch.testing.assert_close(state, whole[kept])


def test_a_batch_gives_the_rows_of_its_texts(tiny_model):
    model = tiny_model("xlmr")
    texts = ["", TEXTS[0], "\ud83d lone", " ", "A", TEXTS[-1], "word " * 400]
    whole, targets, _ = align_tokens(model, texts)
    alone = [align_tokens(model, [text]) for text in texts]
    torch.testing.assert_close(targets, torch.cat([one.targets for one in alone]))
    for layer, state in enumerate(whole):
        expected = torch.cat([one.states[layer] for one in alone])
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)
    assert len(alone[0].targets) == 0
    assert not model.processor.stats, "aligning is not reading"
