import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palam.errors import PalamError
from palam.tasks.readers import read_rows

ODD = [
    "",
    " ",
    "ශ්‍රී ලංකා",
    "‏שלום",
    "a\u2028b\x85c",
    'tab\tquote"comma,',
    "two\nlines\r\nthree",
    "🙂",
    "\ufeff",
]


def stdin(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def error(path, **settings):
    with pytest.raises(PalamError) as caught:
        list(read_rows(path, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_jsonl_keeps_every_text_as_it_is(tmp_path, bom):
    texts = [*ODD, "\ud800 alone", "nul \0 escaped"]
    lines = "\r\n".join(json.dumps({"text": t, "n": i}) for i, t in enumerate(texts))
    path = write(tmp_path / "a.jsonl", bom + lines.encode() + b"\n\n")
    assert list(read_rows(path)) == [{"text": t, "n": i} for i, t in enumerate(texts)]


def test_csv_keeps_quoted_newlines_and_drops_the_bom(tmp_path):
    rows = ['text,"label"', *('"' + text.replace('"', '""') + '",x' for text in ODD)]
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert list(read_rows(path)) == [{"text": text, "label": "x"} for text in ODD]


def test_plain_text_is_one_text_a_line_blank_ones_included(tmp_path):
    path = write(tmp_path / "a.txt", "text\n\n{not json\r\nlast\u2028same")
    assert [row["text"] for row in read_rows(path)] == ["text", "", "{not json", "last\u2028same"]


@given(st.lists(st.dictionaries(st.text(), st.text()).map(lambda d: {**d, "text": "t"})))
def test_jsonl_round_trip(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes("\n".join(json.dumps(row) for row in rows).encode())
        assert list(read_rows(path)) == rows


@pytest.mark.parametrize(
    ("data", "column", "expected"),
    [
        (b'{"text": "a"}\n{"text": "b"}\n', None, [{"text": "a"}, {"text": "b"}]),
        (b"id,text\n1,a\n", None, [{"id": "1", "text": "a"}]),
        (b'"id","body"\n1,"a\nb"\n', "body", [{"id": "1", "body": "a\nb"}]),
        (b"a, b\nc\n", None, [{"text": "a, b"}, {"text": "c"}]),
        (b"", None, []),
    ],
)
def test_standard_input_tells_its_format_by_its_first_line(monkeypatch, data, column, expected):
    stdin(monkeypatch, data)
    assert list(read_rows("-", column=column)) == expected


def test_rows_stream(monkeypatch):
    def endless():
        while True:
            yield b'{"text": "more"}\n'

    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": endless()}))
    rows = read_rows("-")
    assert [next(rows)["text"] for _ in range(3)] == ["more"] * 3


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": ', "a.jsonl, line 2: not JSON: Expecting value"),
        ("a.jsonl", '\n["text"]', 'a.jsonl, line 2: not a JSON object such as {"text": "…"}'),
        ("a.jsonl", "[" * 200_000, "a.jsonl, line 1: not JSON"),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}", "a.jsonl, line 1: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl, line 2: not UTF-8 (byte 11)"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "a.jsonl, line 1: holds a NUL byte"),
        ("a.txt", b"a\nb\0\n", "a.txt, line 2: holds a NUL byte"),
        (
            "a.jsonl",
            '{"a": 1, "b": 2}',
            'line 1: no column "text" among a, b; name one with --column',
        ),
        ("a.jsonl", '{"text": null}', 'line 1: column "text" holds None, not a text'),
        ("a.csv", "text,label\na,b\nc\n", "a.csv, line 3: 1 columns where the header has 2"),
        ("a.csv", "text,text\n", "a.csv, line 1: the header names a column twice: text, text"),
        ("a.csv", 'text\nok\n"open\n', "a.csv, line 3: not CSV: unexpected end of data"),
        (
            "a.csv",
            "body\nx\n",
            'a.csv, line 2: no column "text" among body; name one with --column',
        ),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, file, data, message):
    assert message in error(write(tmp_path / file, data))


def test_a_missing_column_or_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}')
    assert error(path, column="body").endswith('line 1: no column "body" among text')
    assert 'no column "body": plain text has none' in error(
        write(tmp_path / "a.txt", "x"), column="body"
    )
    stdin(monkeypatch, b"title,text\nx,y\n")
    assert 'standard input, line 1: no column "body"' in error("-", column="body")
    assert error(tmp_path / "none.jsonl").endswith("none.jsonl: No such file or directory")
    assert "Is a directory" in error(tmp_path)
