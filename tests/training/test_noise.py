"""Noise on words: what may change, and by how much."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from palam.training.noise import WordNoise

WORDS = [f"w{number}" for number in range(2000)]
TEXT = " ".join(WORDS)


def test_no_noise_leaves_the_text_as_it_is():
    assert WordNoise().applied("a  b\tc\n", 1) == "a  b\tc\n"


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.integers(0, 2**64), st.floats(0, 0.99))
def test_words_are_moved_and_dropped_never_changed(words, number, share):
    noisy = WordNoise(share, share).applied(" ".join(words), number).split()
    assert not Counter(noisy) - Counter(words)
    assert bool(noisy) == bool(words)
    swapped = WordNoise(swap=share).applied(" ".join(words), number).split()
    assert sorted(swapped) == sorted(words)


def test_a_word_moves_by_one_place_at_most():
    swapped = WordNoise(swap=0.5).applied(TEXT, 3).split()
    moved = [abs(WORDS.index(word) - place) for place, word in enumerate(swapped)]
    assert set(moved) == {0, 1}


def test_the_shares_are_those_asked_for():
    dropped = WordNoise(drop=0.2).applied(TEXT, 5).split()
    assert 0.17 < 1 - len(dropped) / len(WORDS) < 0.23
    swapped = WordNoise(swap=0.15).applied(TEXT, 5).split()
    pairs = sum(word != WORDS[place] for place, word in enumerate(swapped)) / 2
    num_drawn = len(WORDS) - pairs  # a word that was just swapped is not drawn
    assert 0.12 < pairs / num_drawn < 0.18
    assert 0.11 < pairs / (len(WORDS) - 1) < 0.15  # 0.15 / 1.15 of the places


def test_the_same_number_draws_the_same():
    noise = WordNoise(0.3, 0.3)
    assert noise.applied(TEXT, 7) == noise.applied(TEXT, 7) != noise.applied(TEXT, 8)
