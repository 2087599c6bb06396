"""Samples keep the shares of labels, and passages are whole sentences."""

import math
from collections import Counter

import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from palam.tasks.sampling import balanced, passage, sample, weighted_place
from palam.tasks.task import Example


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 5),
)
def test_a_sample_is_stratified_ordered_and_repeatable(labels, max_samples, seed):
    examples = [Example(i, {"text": str(i)}, label) for i, label in enumerate(labels)]
    chosen = sample(examples, max_samples, seed)
    rows = [example.row for example in chosen]
    size = min(max_samples, len(labels))
    assert len(rows) == len(set(rows)) == size
    assert rows == sorted(rows)
    assert chosen == sample(examples, max_samples, seed)
    counts = Counter(example.label for example in chosen)
    for label, count in Counter(labels).items():
        exact = size * count / len(labels)
        assert math.floor(exact) <= counts[label] <= math.ceil(exact)


def test_a_sample_of_sorted_rows_is_not_the_first_of_them():
    examples = [Example(i, {}, "a" if i < 50 else "b") for i in range(100)]
    rows = [example.row for example in sample(examples, 20, 0)]
    assert sum(row < 50 for row in rows) == 10
    assert rows[:10] != list(range(10))
    assert rows != [example.row for example in sample(examples, 20, 1)]
    assert {sample(examples, 1, seed)[0].label for seed in range(20)} == {"a", "b"}
    assert sample(examples, None) == sample(examples, 100) == examples
    assert "1 at least" in refusal(sample, examples, 0)


def test_parallel_languages_give_the_same_rows():
    english = [Example(i, {"text": f"e{i}"}, "abc"[i % 3]) for i in range(30)]
    tamil = [Example(i, {"text": f"t{i}"}, "abc"[i % 3]) for i in range(30)]
    assert [e.row for e in sample(english, 7, 3)] == [e.row for e in sample(tamil, 7, 3)]


@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_rows(seed):
    labels = "a" * 70 + "b" * 25 + "c" * 5
    rows = [Example(i, {"text": str(i)}, label) for i, label in enumerate(labels)]
    chosen = balanced(rows, seed)
    assert Counter(example.label for example in chosen) == {"a": 34, "b": 34, "c": 34}
    times = Counter(example.row for example in chosen)
    assert {example.row for example in rows if example.label != "a"} <= set(times)
    for label in "abc":
        counts = [times[example.row] for example in rows if example.label == label]
        assert max(counts) - min(counts) <= 1, label
    assert balanced(rows, seed) == chosen
    assert balanced(rows, seed + 1) != chosen
    assert balanced(rows[:1]) == rows[:1]
    assert balanced([]) == []


ARTICLE = (
    'One two three four. Five "six seven." Eight nine?\n'
    "Ten eleven twelve thirteen fourteen! Fifteen."
)


@pytest.mark.parametrize("words", [1, 3, 5, 9, 15, 40])
def test_a_passage_is_whole_sentences_of_the_text(words):
    passages = {passage(ARTICLE, words, number) for number in range(20)}
    ends = ("four.", 'seven."', "nine?", "fourteen!", "Fifteen.")
    for text in passages:
        assert text in ARTICLE
        assert text.split()[0] in ("One", "Five", "Eight", "Ten", "Fifteen.")
        assert text.endswith(ends)
        assert len(text.split()) >= min(words, 15)
        sentence_ends = [end for end in ends if end in text]
        if len(sentence_ends) > 1:
            end_of_all_but_last = text.rindex(sentence_ends[-2]) + len(sentence_ends[-2])
            shorter = text[:end_of_all_but_last]
            assert len(shorter.split()) < words, "it goes on after it has enough"
    assert len(passages) == {1: 5, 3: 4, 5: 4, 9: 2}.get(words, 1)


@pytest.mark.parametrize("text", ["", "   ", "no end", "ගෙදර යමු", "\n\n", "...", "a. \ud83d b. c."])
def test_a_passage_of_any_text(text):
    for number in range(4):
        assert passage(text, 2, number) in text
        assert passage(text, 2, number).strip() or not text.strip()


def test_a_place_is_chosen_as_often_as_its_weight_says():
    weights = [3, 0, 1]
    numbers = [round(place / 400 * 2**64) for place in range(400)]
    assert Counter(weighted_place(weights, number) for number in numbers) == {0: 300, 2: 100}
    assert weighted_place(weights, 2**64 - 1) == 2
