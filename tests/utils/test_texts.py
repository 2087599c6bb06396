"""What callers give as texts: lists and columns of strings pass, everything else is one line."""

import math

import numpy as np
import pytest
from helpers import refusal

from palam.utils.texts import checked_texts


@pytest.mark.parametrize(
    "texts",
    [["a", ""], ("a", ""), iter(["a", ""]), np.array(["a", ""]), np.array(["a", ""], dtype=object)],
)
def test_strings_in_any_order_of_things_pass(texts):
    assert checked_texts(texts) == ["a", ""]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a b", "the texts are one string; give a list of strings, for one alone [text]"),
        (None, "the texts are None; give a list of strings"),
        (b"a", "the texts are of type bytes; give a list of strings"),
        ({"a": 1}, "the texts are of type dict; give a list of strings"),
        (3, "the texts are of type int; give a list of strings"),
        (["a", None], "number 1 of the texts (counted from 0) is None, not a string"),
        ([math.nan], "number 0 of the texts (counted from 0) is NaN, not a string"),
        ([np.float64("nan")], "number 0 of the texts (counted from 0) is NaN, not a string"),
        (["a", 3], "number 1 of the texts (counted from 0) is of type int, not a string"),
        ([["a"]], "number 0 of the texts (counted from 0) is of type list, not a string"),
    ],
)
def test_everything_else_is_refused_in_one_line(texts, message):
    assert refusal(checked_texts, texts).startswith(message)


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    assert checked_texts(pandas.Series(["a", "b"], index=[7, 3])) == ["a", "b"]
    for missing in (None, math.nan, pandas.NA):
        column = pandas.Series(["a", missing], dtype=object)
        assert "number 1 of the texts" in refusal(checked_texts, column)


def test_labels_are_called_labels():
    assert refusal(checked_texts, "good", "labels").startswith("the labels are one string")
