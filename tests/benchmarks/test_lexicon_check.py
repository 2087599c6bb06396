"""A lexicon's words in parallel sentences: `benchmarks/lexicon_check.py`."""

import pytest
from helpers import benchmark_script

from palam.tasks.lexicon import Lexicon


@pytest.fixture
def lexicon_check():
    return benchmark_script("lexicon_check")


def test_a_word_is_looked_for_in_its_own_row_and_in_the_others(lexicon_check):
    lexicon = Lexicon(
        {
            "Latin": {"house": ("nyumba",), "water": ("maji",)},
            "Sinhala": {"water": ("maji",)},  # another script: does not count
        }
    )
    words = lexicon_check.english_by_translation(lexicon)
    english = ["Two houses.", "The water is cold.", "A house by the water.", "Nothing"]
    texts = ["Nyumba mbili.", "Maji ni baridi!", "Maji tu", "Hakuna kitu"]
    figures = lexicon_check.check(texts, english, words)
    assert figures.covered == 3 / 9
    assert figures.parallel == 1.0  # "houses" has the stem of "house"
    assert figures.by_chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 3) / 3)


def test_wrong_pairs_are_seen(lexicon_check):
    words = lexicon_check.english_by_translation(Lexicon({"Latin": {"house": ("maji",)}}))
    figures = lexicon_check.check(["maji", "nyumba"], ["water", "house"], words)
    assert figures == (0.5, 0.0, 1.0)
