"""Texts as callers give them are checked row by row, and made fit for a terminal."""

import math

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from palam.utils.texts import checked_texts, first_line, printable

TEXTS = ["ශ්‍රී ලංකා", "", "\ud800"]


@pytest.mark.parametrize(
    "sequence",
    [TEXTS, tuple(TEXTS), np.array(TEXTS[:2]), np.array(TEXTS, dtype=object), iter(TEXTS), []],
    ids=["list", "tuple", "array", "objects", "iterator", "empty"],
)
def test_sequences_of_strings(sequence):
    texts = checked_texts(sequence)
    assert texts == TEXTS[: len(texts)]
    assert all(type(text) is str for text in texts)


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    texts = TEXTS[:2]
    column = pandas.Series(texts, index=[7, 7])
    assert checked_texts(column) == texts
    frame = pandas.DataFrame({"a": texts, "b": texts})
    assert checked_texts(frame["a"]) == texts
    assert "not a DataFrame" in refusal(checked_texts, frame)
    for missing in (None, math.nan, pandas.NA):
        message = refusal(checked_texts, pandas.Series(["a", missing]), "the prompts")
        assert message.startswith("the prompts: row 1 holds ")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "texts must be a sequence of strings, not one string: give [text]"),
        (b"bytes", "must be a sequence of strings, such as a list, not a bytes"),
        (None, "not a NoneType"),
        (7, "not a int"),
        ({"text": "a"}, "not a dict"),
        ({"a", "b"}, "not a set"),
        (np.array([["a", "b"]]), "not a ndarray"),
        (["a", None], "texts: row 1 holds None (NoneType), not a text"),
        (["a", "b", math.nan], "texts: row 2 holds nan (float), not a text"),
        ([3], "texts: row 0 holds 3 (int), not a text"),
        ([["\x1b[2J"]], "texts: row 0 holds ['\\x1b[2J'] (list), not a text"),
    ],
)
def test_what_is_no_sequence_of_strings_is_refused(texts, message):
    assert message in refusal(checked_texts, texts)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ශ්‍රී ලංකා, naïve 🙂", "ශ්‍රී ලංකා, naïve 🙂"),
        ("\x1b]0;title\x07\x1b[31m", "\\x1b]0;title\\x07\\x1b[31m"),
        ("a\r\n\tb\x00\x7f\x9b", "a\\r\\n\\tb\\x00\\x7f\\x9b"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u2028\ud800", "\\u2028\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_what_is_shown_is_one_line_that_can_be_written(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    shown.encode()
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("message", "line"),
    [("it is\nso", "it is"), ("\n it is \n", "it is"), ("", "ValueError"), ("\n", "ValueError")],
)
def test_the_first_line_of_an_error(message, line):
    assert first_line(ValueError(message)) == line
