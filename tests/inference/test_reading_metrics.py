"""What counts as a content word, and what an answer says of them; chrF as sacrebleu gives it."""

import sys

import pytest
import sacrebleu
from helpers import refusal

from palam.inference import reading_metrics
from palam.inference.reading_metrics import (
    EnglishSentences,
    ReadingMetrics,
    bootstrap_interval,
    content_stems,
    content_word_recall,
    function_words,
    row_readings,
    says_one_of,
    without_numbers,
)

ENGLISH = "Farmers in Kandy didn't harvest 20 fields of rice. Heavy rains had ruined the fields."


def test_content_words_are_neither_function_words_nor_numbers_nor_names():
    expected = {"farmer", "harvest", "field", "rice", "heavi", "rain", "ruin"}
    assert content_stems(ENGLISH) == expected


def test_words_that_stand_in_the_source_text_can_be_copied_and_do_not_count():
    source = "FARMERS wa mpunga; ricefields, Rains."
    assert content_stems(ENGLISH, source) == {"harvest", "field", "rice", "heavi", "ruin"}


def test_a_name_at_the_beginning_counts_only_where_it_is_not_a_name_elsewhere():
    assert content_stems("Paris slept. Nobody in Paris knew.") == {"slept", "knew"}
    assert content_stems("Paris slept.") == {"pari", "slept"}


@pytest.mark.parametrize(
    ("answer", "recall"),
    [
        ("The farmer harvests a field of rice; heavy rain ruins it", 1.0),
        ("Heavy heavy heavy heavy", 1 / 7),
        ("The FIELD was raining", 2 / 7),
        ("Kandy 20 didn't", 0.0),
        ("", 0.0),
    ],
)
def test_recall_is_the_share_of_stems_that_are_said(answer, recall):
    assert content_word_recall(answer, ENGLISH) == pytest.approx(recall)


def test_a_sentence_without_content_words_has_no_recall():
    assert content_word_recall("anything", "It was not that.") is None
    assert content_word_recall("radio", "The radio.", "radio") is None


def test_function_words_are_lower_case_words_without_apostrophes():
    assert all(word.isalpha() and word == word.lower() for word in function_words())
    assert {"the", "not", "because"} <= function_words()
    assert not {"fire", "bill", "system", "water"} & function_words()


def test_an_answer_is_right_if_it_says_all_words_of_an_accepted_one():
    assert says_one_of("It was the bakers' shop", ["store", "baker"])
    assert says_one_of("He drives the bus, a driver", ["bus driver"])
    assert not says_one_of("a driver", ["bus driver"])
    assert not says_one_of("", ["bus"])
    assert not says_one_of("early or late", ["late"], wrong=["early"])
    assert says_one_of("late", ["late"], wrong=["go on", "early"])


@pytest.mark.parametrize("empty", ["", " ", "+", "…"])
def test_what_has_no_word_in_it_is_never_said(empty):
    assert not says_one_of("It was so", [empty])
    assert not says_one_of("", [empty])
    assert says_one_of("late", [empty, "late"], wrong=[empty])


def test_numbers_are_taken_out_with_what_hangs_on_them():
    assert without_numbers("In 1998, the 5th-best of  3 won.") == "In the of won."


def test_chrf_and_the_nearest_sentence_are_sacrebleus():
    english = ["The dog sleeps.", "The dog runs.", "Rice is dear."]
    sentences = EnglishSentences(english)
    for answer in ("A dog sleeps", "dog", "Rise is deer"):
        expected = [sacrebleu.sentence_chrf(answer, [sentence]).score for sentence in english]
        assert [sentences.chrf(answer, place) for place in range(3)] == expected
        for place in range(3):
            assert sentences.identifies(answer, place) == (expected[place] == max(expected))
    assert not any(sentences.identifies("", place) for place in range(3))


def test_rows_and_their_means():
    english = ["The dog sleeps.", "It is so."]
    readings = row_readings(["The dog sleeps.", "dog"], english, ["x", "y"])
    assert readings[0] == (1.0, 100.0, True)
    assert readings[1].recall is None
    assert not readings[1].identified
    metrics = ReadingMetrics.of([reading._asdict() for reading in readings])
    assert metrics.recall == 1.0
    assert metrics.identified == 0.5
    assert metrics.likeliest is None
    assert set(metrics.to_dict()) == {"recall", "ci95", "chrf", "identified"}
    mean = ReadingMetrics.mean([metrics, ReadingMetrics.of([{"identified": True}])])
    assert (mean.recall, mean.ci95, mean.identified) == (1.0, None, 0.75)


def test_the_bootstrap_interval_covers_the_mean_as_the_normal_one_does():
    values = [0.0, 0.25, 0.5, 1.0] * 50
    low, high = bootstrap_interval(values)
    mean = sum(values) / 200
    variance = sum((value - mean) ** 2 for value in values) / 200
    half = 1.96 * (variance / 200) ** 0.5
    assert low == pytest.approx(mean - half, abs=0.01)
    assert high == pytest.approx(mean + half, abs=0.01)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.5]) == (0.0, 1.0)


@pytest.mark.parametrize("package", ["snowballstemmer", "sacrebleu"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    for name in [*sys.modules]:
        if name == package or name.startswith(f"{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    reading_metrics._stemmer.cache_clear()
    message = refusal(reading_metrics.check_installed)
    reading_metrics._stemmer.cache_clear()
    assert message == f'readings are measured with {package}: pip install "palam[reading]"'
