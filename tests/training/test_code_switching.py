"""Words of other languages in what the encoder reads."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palam import PalamError
from palam.tasks.lexicon import Lexicon
from palam.training.code_switching import CodeSwitching
from palam.training.datasets import AnswerDataset, TextChanges
from palam.training.noise import WordNoise
from palam.training.raw_text import RawTextDataset

LEXICON = Lexicon(
    {
        "Swahili": {"water": ("maji",), "house": ("nyumba", "nyumbani")},
        "Sinhala": {"water": ("වතුර", "ජලය")},
    }
)
SAID = {
    "water": {"water", "maji", "වතුර", "ජලය"},
    "house": {"house", "nyumba", "nyumbani"},
}
TEXT = 'The "water" in\tthe House:\n cold water, no house.'


def switched(text, number, share=0.9, lexicon=LEXICON):
    return CodeSwitching(lexicon, share).applied(text, random.Random(number))


def test_words_of_the_lexicon_are_said_in_its_languages_and_nothing_else_changes():
    seen = Counter()
    for number in range(300):
        words = switched(TEXT, number)
        shape = words
        for word in sorted(SAID["water"] | SAID["house"] | {"House"}, key=len, reverse=True):
            shape = shape.replace(word, "_")
        assert shape == 'The "_" in\tthe _:\n cold _, no _.'
        seen.update(words.replace('"', " ").split())
    for word in ("water", "maji", "වතුර", "ජලය", "House:", "nyumba:", "nyumbani.", "house."):
        assert seen[word], word


def test_a_word_is_found_however_its_marks_are_written():
    lexicon = Lexicon({"Spanish": {"caf\u00e9": ("cafetería",)}})
    for word in ("Caf\u00e9", "Cafe\u0301"):
        texts = {switched(f"{word}!", number, lexicon=lexicon) for number in range(50)}
        assert texts == {f"{word}!", "cafetería!"}


def test_most_texts_have_one_other_language_and_some_have_several():
    kinds = Counter()
    for number in range(600):
        words = switched("water " * 6, number).split()
        kinds[
            frozenset("Swahili" if word == "maji" else "Sinhala" for word in words)
            if "water" not in words
            else "some"
        ] += 1
    assert kinds[frozenset({"Swahili"})]
    assert kinds[frozenset({"Sinhala"})]
    assert kinds[frozenset({"Swahili", "Sinhala"})]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_the_share_is_that_of_the_texts(share):
    text = "water " * 40  # that none of them is switched is not to be expected
    changed = sum(switched(text, number, share) != text for number in range(2000))
    assert changed / 2000 == pytest.approx(share, abs=0.03)


def test_a_language_with_more_words_is_drawn_more_often():
    lexicon = Lexicon(
        {"few": {"water": ("a",)}, "many": {"water": ("b",)} | {str(n): ("c",) for n in range(99)}}
    )
    counts = Counter()
    for number in range(3000):
        counts[switched("water", number, lexicon=lexicon)] += 1
    # Ten times as often in a single language, equally often where each word has its own.
    many, few = 0.6 * 10 / 11 + 0.2, 0.6 / 11 + 0.2
    assert counts["b"] / counts["a"] == pytest.approx(many / few, rel=0.2)


@given(st.text(), st.integers(0, 2**64))
def test_a_text_without_words_of_the_lexicon_stays(text, number):
    lexicon = Lexicon({"none": {"\0": ("x",)}})
    assert switched(text, number, lexicon=lexicon) == text


def test_it_comes_after_words_are_swapped_and_dropped():
    noise = WordNoise(0.3, 0.2, CodeSwitching(LEXICON, 0.9))
    plain = WordNoise(0.3, 0.2)
    text = "cold water in the house on a hill " * 3
    for number in range(50):
        expected = plain.applied(text, number).split()
        words = noise.applied(text, number).split()
        for word, before in zip(words, expected, strict=True):
            assert word in SAID.get(before, {before})


def changes(share=0.9):
    return TextChanges(noise=WordNoise(switching=CodeSwitching(LEXICON, share)))


def test_a_tasks_rows_change_in_every_epoch_and_answers_do_not(tiny_model):
    processor = tiny_model().processor
    texts = ["The water is cold in the house"] * 8
    answers = ["house"] * 8
    data = AnswerDataset(processor, texts, answers, changes=changes(), seed=3)
    plain = AnswerDataset(processor, texts, answers)
    read = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        read.append(data.current_texts(range(8)))
        rows = [tuple(data[row]["encoder_input_ids"]) for row in range(8)]
        expected = processor.encode_texts(read[-1])
        assert rows == [tuple(each["input_ids"]) for each in expected]
        for row in range(8):
            assert data[row]["input_ids"] == plain[row]["input_ids"]
    assert read[0] == read[2] != read[1]
    assert len(set(read[0])) > 3
    assert data.repeated_encoder_ids() is None


def test_the_lexicon_is_part_of_what_tells_a_runs_rows_from_anothers(tiny_model):
    processor = tiny_model().processor
    content = [("house", "nyumba", "Swahili"), ("water", "ජලය", "Sinhala")]
    tasks = AnswerDataset(processor, ["a b"], ["c"], changes=changes())
    raw = RawTextDataset(processor, ["a b"], noise=changes().noise)
    for data in (tasks, raw):
        assert set(content) < set(data.content())
    without = AnswerDataset(processor, ["a b"], ["c"])
    assert not set(content) & set(without.content())


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_at_most_one(settings, share):
    assert settings(code_switch=1, lexicon="lexicon.csv").optim.code_switch == 1
    with pytest.raises(PalamError, match=r"code_switch is .*; it must be from 0 to 1"):
        settings(code_switch=share, lexicon="lexicon.csv")
