"""One table through every format: the same rows, in the same order."""

import io
import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palam.tasks.cells import cell_text
from palam.tasks.readers import RowSource
from palam.tasks.writers import FLAT_FORMATS, output_format, write_rows

FORMATS = ("jsonl", "json", *FLAT_FORMATS)
TEXTS = [
    "ශ්‍රී ලංකාව",
    "தமிழ்",
    "‏العربية‏",
    "👩🏽‍🚀 🙂",
    "two\nlines\r\nthree\rfour",
    'a "quote", a comma; a semicolon | a bar',
    "tab\tand 'apostrophe'",
    "007",
    "=1+1",
    "+94 11 2",
    "-5",
    "@home",
    "#N/A",
    "TRUE",
    "_x000D_ and _x005F_",
    " space around ",
    "",
    "long " * 6000,
    "\ufeffmark",
    "a\u2028b\x85c",
]
VALUES = [1, -2.5, 3.0, True, False, None, "word", 2**60, [1, "ö"], {"a": None}]


def write_table(path, rows, columns):
    with path.open("wb") as file:
        write_rows(rows, columns, file, output_format(path))
    return path


def read_table(path):
    source = RowSource(path)
    rows = [numbered.row for numbered in source.rows()]
    assert source.count() == len(rows)
    return rows


def cells(rows):
    """What the rows' cells show."""
    return [{name: cell_text(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("file_format", FORMATS)
def test_texts_are_the_same_in_every_format(tmp_path, file_format):
    rows = [{"id": f"{n:03}", "text": text, "label": "x"} for n, text in enumerate(TEXTS)]
    path = write_table(tmp_path / f"a.{file_format}", rows, list(rows[0]))
    assert cells(read_table(path)) == rows


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_table_of_one_column_is_the_same_in_every_format(tmp_path, file_format):
    rows = [{"the; text": text} for text in TEXTS]
    path = write_table(tmp_path / f"a.{file_format}", rows, ["the; text"])
    assert cells(read_table(path)) == rows


@pytest.mark.parametrize(("first", "second"), list(product(FORMATS, FORMATS)))
def test_a_table_through_two_formats(tmp_path, first, second):
    rows = [{"text": text, "value": value} for text, value in zip(TEXTS, VALUES * 2, strict=True)]
    path = write_table(tmp_path / f"a.{first}", rows, ["text", "value"])
    path = write_table(tmp_path / f"b.{second}", read_table(path), ["text", "value"])
    assert cells(read_table(path)) == cells(rows)


@pytest.mark.parametrize("file_format", ["jsonl", "json", "parquet"])
def test_columns_keep_their_types(tmp_path, file_format):
    rows = [
        {"n": 1, "x": 1.5, "b": True, "t": "1", "big": 2**60},
        {"n": None, "x": 2.0, "b": None, "t": None, "big": 3},
    ]
    path = write_table(tmp_path / f"a.{file_format}", rows, list(rows[0]))
    assert read_table(path) == rows


# Characters that every format can hold.
letters = st.characters(
    codec="utf-8", exclude_characters="\0\ufffe\uffff", exclude_categories=["Cc"]
)
texts = st.text(st.one_of(letters, st.sampled_from("\n\r\t\",;|=' _x0D")), max_size=12)
values = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
)
tables = st.lists(st.fixed_dictionaries({"text": texts, "value": values}), max_size=6)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(rows=tables, first=st.sampled_from(FORMATS), second=st.sampled_from(FORMATS))
def test_rows_in_are_rows_out_in_order(tmp_path_factory, rows, first, second):
    folder = tmp_path_factory.mktemp("tables")
    path = write_table(folder / f"a.{first}", rows, ["text", "value"])
    path = write_table(folder / f"b.{second}", read_table(path), ["text", "value"])
    result = read_table(path)
    assert [cell_text(row["text"]) for row in result] == [row["text"] for row in rows]
    assert [shown(row["value"]) for row in result] == [shown(row["value"]) for row in rows]


def shown(value):
    """A value's text; a number is the same however it is written."""
    text = cell_text(value)
    try:
        return float(text) if text == text.strip() and "_" not in text else text
    except ValueError:
        return text


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_rows_are_a_header(tmp_path, file_format):
    path = write_table(tmp_path / f"a.{file_format}", [], ["text", "label"])
    assert read_table(path) == []


def test_json_is_an_array_and_jsonl_a_line_a_row():
    rows = [{"text": "ö"}, {"text": "b", "more": 1}]
    file = io.BytesIO()
    write_rows(rows, ["text"], file, "json")
    assert json.loads(file.getvalue()) == rows
    file = io.BytesIO()
    write_rows(rows, ["text"], file, "jsonl")
    assert [json.loads(line) for line in file.getvalue().splitlines()] == rows
