"""Long texts in passages: all of their words, in order, none longer than the encoder reads."""

from itertools import pairwise

import pytest
import tiny

from palam.alignment.passages import PassageSplitter
from palam.models.template import clean

ENGLISH = tiny.TEXT["en"]


@pytest.fixture
def splitter(tiny_model):
    """`splitter(max_length=12)`: a splitter and its encoder's token counter."""

    def build(encoder="bert", max_length=12):
        processor = tiny_model(encoder, max_length=max_length).processor

        def count(text):
            return len(processor.encoder_tokenizer(text)["input_ids"])

        return PassageSplitter(processor), count

    return build


def without_spaces(text):
    return "".join(text.split())


def test_a_short_text_is_its_only_passage(splitter):
    split, count = splitter(max_length=128)
    text = "  I am going home.\nThe rice price went up. "
    assert count(text) <= 128
    assert split.passages(text) == [text]
    assert split.passages("") == [""]


@pytest.mark.parametrize("encoder", ["bert", "xlmr"])
@pytest.mark.parametrize("max_length", [8, 12, 40])
def test_no_word_is_lost_and_no_passage_is_too_long(splitter, encoder, max_length):
    split, count = splitter(encoder, max_length)
    passages = split.passages(ENGLISH * 3)
    assert without_spaces("".join(passages)) == without_spaces(ENGLISH * 3)
    assert all(count(passage) <= max_length for passage in passages)
    assert all(passage == passage.strip() != "" for passage in passages)


def test_passages_end_with_sentences_where_they_can(splitter):
    split, count = splitter(max_length=40)
    sentences = ["I am going home.", "The rice price went up.", "The children read a book."]
    text = " ".join(sentences * 4)
    assert count(text) > 40
    passages = split.passages(text)
    assert len(passages) > 1
    assert all(passage.endswith(".") for passage in passages)
    # As many sentences as fit: two neighbours together would be too long.
    for first, second in pairwise(passages):
        assert count(f"{first} {second.split('.')[0]}.") > 40


def test_a_long_sentence_is_split_between_words_and_a_long_word_within(splitter):
    split, count = splitter("xlmr", max_length=10)
    words = ["home", "book", "rice", "team", "moon", "water", "school", "match"]
    passages = split.passages(" ".join(words * 3))
    assert [word for passage in passages for word in passage.split()] == words * 3
    long_word = "xq" * 60
    parts = split.passages(long_word)
    assert "".join(parts) == long_word
    assert len(parts) > 1
    assert all(count(part) <= 10 for part in parts)


def test_passages_are_clean_as_the_encoder_reads_them(splitter):
    split, _ = splitter(max_length=128)
    in_parts = "e\u0301a\ud800"
    assert split.passages(in_parts) == [clean(in_parts)] == ["\u00e9a\ufffd"]
