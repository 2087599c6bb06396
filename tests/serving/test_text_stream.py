"""Text as it comes is what the whole answer is."""

import random

import pytest
import tiny

from palam.serving.text_stream import TextStream

KINDS = {
    "byte_bpe": lambda: tiny.fast(tiny.byte_bpe(["<s>", "</s>"])),
    **{kind: (lambda kind=kind: tiny.kind_of_tokenizer(kind)) for kind in tiny.KINDS},
}


def decoder(tokenizer):
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True)


def streamed(decode, ids, stops=()):
    stream = TextStream(decode, stops)
    pieces = []
    for token_id in ids:
        pieces.append(stream.push(token_id))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    assert stream.text == "".join(pieces)
    return pieces, stream


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["en", "si", "am", "zh"])
def test_the_pieces_are_the_whole_text(kind, language):
    tokenizer = KINDS[kind]()
    decode = decoder(tokenizer)
    ids = tokenizer(f" {tiny.TEXT[language]} \n", add_special_tokens=False)["input_ids"]
    pieces, _ = streamed(decode, ids)
    assert "".join(pieces) == decode(ids).strip()
    assert "\ufffd" not in "".join(pieces)
    assert sum(map(bool, pieces)) > 5


@pytest.mark.parametrize("kind", ["byte_bpe", "merging", "thinking"])
def test_random_ids_give_the_whole_text(kind):
    tokenizer = KINDS[kind]()
    decode = decoder(tokenizer)
    drawn = random.Random(0)
    for _ in range(50):
        ids = [drawn.randrange(len(tokenizer)) for _ in range(12)]
        assert "".join(streamed(decode, ids)[0]) == decode(ids).strip()


def words(ids):
    """A decoder whose ids are characters."""
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one. two. three", ["."], "one"),
        ("one. two", ["two", "one."], ""),
        ("aab", ["ab"], "a"),
        ("one\n\ntwo", ["\n\n"], "one"),
        ("\ntwo", ["\n"], ""),
        ("one", ["e!"], "one"),
        ("one END", ["END"], "one"),
        ("  one  ", [], "one"),
        ("one", [""], "one"),
    ],
)
def test_an_answer_ends_before_its_stop_string(text, stops, expected):
    pieces, stream = streamed(words, [ord(character) for character in text], stops)
    assert "".join(pieces) == expected
    assert stream.stopped == any(stop and stop in text for stop in stops)


def test_nothing_is_given_out_that_may_become_a_stop_string():
    stream = TextStream(words, ["stop"])
    assert [stream.push(ord(character)) for character in "so st"] == ["", "so", "", "", ""]
    assert stream.push(ord("a")) == " sta"
