import csv
import io
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest
from helpers import read_rows
from hypothesis import given
from hypothesis import strategies as st

from palam.errors import PalamError
from palam.tasks.readers import (
    RowSource,
    check_readable,
    language_of,
    numbered_rows,
    read_texts,
    text_of,
)

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
        (b'[\n{"text": "a"},\n{"text": "b"}]', None, [{"text": "a"}, {"text": "b"}]),
        (b"a, b\nc\n", None, [{"text": "a, b"}, {"text": "c"}]),
        (b"\n\na\n", None, [{"text": ""}, {"text": ""}, {"text": "a"}]),
        (b"[Applause] Thank you.\n", None, [{"text": "[Applause] Thank you."}]),
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
        ("a.jsonl", '{"text": "a"}'.encode("utf-16-le"), "a.jsonl, line 1: holds a NUL byte"),
        ("a.txt", b"a\nb\0\n", "a.txt, line 2: holds a NUL byte"),
        (
            "a.jsonl",
            '{"a": 1, "b": 2}',
            'line 1: no column "text" among a, b',
        ),
        ("a.jsonl", '{"text": {"a": 1}}', """line 1: column "text" holds {'a': 1}, not a text"""),
        ("a.csv", "text,label\na,b\nc\n", "a.csv, line 3: 1 columns where the header has 2"),
        ("a.csv", "text,text\n", "a.csv, line 1: the header names a column twice: text, text"),
        ("a.csv", 'text\nok\n"open\n', "a.csv, line 3: not CSV: unexpected end of data"),
        (
            "a.csv",
            "body\nx\n",
            'a.csv, line 2: no column "text" among body',
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
    stdin(monkeypatch, b"a title, a text\nx\n")
    assert 'standard input, line 1: no column "body"' in error("-", column="body")
    assert error(tmp_path / "none.jsonl").endswith("none.jsonl: No such file or directory")
    assert "Is a directory" in error(tmp_path)


def test_texts_are_of_the_column_that_is_named(tmp_path):
    table = write(tmp_path / "a.csv", "Title,Article,n\nA, one ,1\nB,,2\nC,two,3\n")
    assert list(read_texts(table, column="Article")) == ["one", "two"]
    assert list(read_texts(table, column="n")) == ["1", "2", "3"]
    assert list(read_texts(table, column="{Title}: {Article}")) == ["A:  one", "B:", "C: two"]
    assert list(read_texts(write(tmp_path / "a.txt", "x\ny"), column="Article")) == ["x", "y"]
    assert list(read_texts(write(tmp_path / "a.jsonl", '{"text": 3}'))) == ["3"]
    with pytest.raises(PalamError, match=r'no column "text" among Title, Article, n$'):
        list(read_texts(table))
    for column in ("text", "Body", "{Body}"):
        with pytest.raises(PalamError, match=r"among Title, Article, n; name one with --body$"):
            list(read_texts(table, column=column, option="--body"))


# --------------------------------------------------------------------------- tables
PAIRS = [{"text": "The soup was cold.", "label": "bad"}, {"text": "Cake; lovely", "label": "good"}]


def table(delimiter, rows=PAIRS):
    """The rows as a spreadsheet writes them."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("ending", ["tsv", "TSV", "tab"])
def test_tab_separated_values_are_a_table(tmp_path, ending):
    path = write(tmp_path / f"a.{ending}", "text\tlabel\nThe soup was cold.\tbad\n\tgood\n")
    assert list(read_rows(path)) == [
        {"text": "The soup was cold.", "label": "bad"},
        {"text": "", "label": "good"},
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_delimiter_of_csv_is_found(tmp_path, delimiter, encoding):
    path = write(tmp_path / "a.csv", table(delimiter).encode(encoding))
    assert list(read_rows(path)) == PAIRS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "~"])
def test_excels_line_names_the_delimiter(tmp_path, delimiter):
    path = write(tmp_path / "a.csv", f"\ufeffsep={delimiter}\r\n{table(delimiter)}")
    assert list(read_rows(path)) == PAIRS
    places = [row.place for row in numbered_rows(path)]
    assert places == [f"{path}, line 3", f"{path}, line 4"]


def test_a_header_with_several_delimiters_is_settled_by_the_rows(tmp_path):
    for delimiter, name in ((";", "text, as written"), (",", "text; as written")):
        row = {name: "One, two; three.", "label": "x"}
        path = write(tmp_path / "a.csv", table(delimiter, [row, row]))
        assert list(read_rows(path, column=name)) == [row, row]


def test_commas_that_agree_too_part_no_cells(tmp_path):
    """In a name and, as decimal commas, in each row."""
    path = write(tmp_path / "a.csv", "text;Preis, netto\nhallo;1,5\nciao;2,5\n")
    assert list(read_rows(path)) == [
        {"text": "hallo", "Preis, netto": "1,5"},
        {"text": "ciao", "Preis, netto": "2,5"},
    ]
    path = write(tmp_path / "b.csv", "text;Preis, netto;label\nhallo;1,5;x\nciao;2,5;y\n")
    assert [row["label"] for row in read_rows(path)] == ["x", "y"]


def test_a_quoted_header_may_hold_any_sign(tmp_path):
    row = {"the\ntext": "a", "x;y": "b"}
    path = write(tmp_path / "a.csv", table(";", [row]))
    assert list(read_rows(path, column="the\ntext")) == [row]


def test_a_cell_may_be_very_long(tmp_path):
    rows = [{"text": "long " * 100_000, "label": "x"}]
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        path = write(tmp_path / f"a.{ending}", table(delimiter, rows))
        assert list(read_rows(path)) == rows


def test_blank_lines_of_one_column_are_rows(tmp_path):
    texts = ["a", "", "b", "", ""]
    for name in ("a.csv", "a.tsv"):
        path = write(tmp_path / name, "text\r\n" + "".join(f"{text}\r\n" for text in texts))
        assert [row["text"] for row in read_rows(path)] == texts
    path = write(tmp_path / "two.csv", "\ntext,label\n\na,x\n\n,y\n\n")
    assert [row["text"] for row in read_rows(path)] == ["a", ""]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"))))
def test_every_row_of_one_column_comes_out_again(texts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text"])
            writer.writerows([text] for text in texts)
        assert [row["text"] for row in read_rows(path)] == texts


def test_a_quotation_mark_in_tab_separated_values_is_a_character_unless_it_quotes(tmp_path):
    lines = [
        "text\tlabel",
        '"It is late\tx',  # such as the files of XNLI have
        'He said "no"\ty',
        '"No," he said.\tz',
        '"a\ttab, a ""quote"""\tx',
        '"two\nlines"\ty',
        '"the last\ty',
    ]
    path = write(tmp_path / "a.tsv", "\n".join(lines))
    rows = [tuple(row.values()) for row in read_rows(path)]
    assert rows == [
        ('"It is late', "x"),
        ('He said "no"', "y"),
        ('"No," he said.', "z"),
        ('a\ttab, a "quote"', "x"),
        ("two\nlines", "y"),
        ('"the last', "y"),
    ]


def test_joined_tables_have_one_header(tmp_path):
    part = "\ufefftext,label\na,x\n"
    path = write(tmp_path / "a.csv", part + part)
    assert list(read_rows(path)) == [{"text": "a", "label": "x"}] * 2
    path = write(tmp_path / "b.csv", "text,label\na,x\ntext,label\n")
    assert "b.csv, line 3: the header again" in error(path)


def test_a_stray_quotation_mark_is_named_by_the_line_that_it_stands_in(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n5" pipe,x\nsaid "no",y\n')
    assert [row["text"] for row in read_rows(path)] == ['5" pipe', 'said "no"']
    path = write(tmp_path / "a.csv", 'text,label\na,x\n"open,y\nb,z\nc,w\n')
    expected = f"{path}, line 3: not CSV: unexpected end of data in line 5"
    assert error(path) == expected
    path = write(tmp_path / "a.csv", 'text,label\na,x\n"open,y\nb,z\n"c",w\n')
    assert error(path).startswith(f"{path}, line 3: not CSV: ',' expected after '\"' in line 5")


def test_empty_cells_after_the_last_column_are_none(tmp_path):
    path = write(tmp_path / "a.csv", "text,label,,\r\na,x,,\r\nb,y\r\nc,z,,,\r\n")
    assert [row["text"] for row in read_rows(path)] == ["a", "b", "c"]
    assert [list(row) for row in read_rows(path)] == [["text", "label"]] * 3
    path = write(tmp_path / "a.csv", "text,label,,\r\na,x,y,\r\n")
    assert error(path).endswith("line 2: 3 columns where the header has 2")


def test_a_column_without_a_name_is_called_by_its_letter(tmp_path):
    path = write(tmp_path / "a.csv", ",text,,label\n0,a,,x\n")  # an index, as pandas writes it
    (row,) = read_rows(path)
    assert row == {"column A": "0", "text": "a", "column C": "", "label": "x"}


def test_a_nul_and_other_encodings_are_one_line(tmp_path):
    path = write(tmp_path / "a.csv", b"text,label\na,x\nb\0,y\n")
    assert error(path) == f"{path}, line 3: holds a NUL byte; save it as UTF-8 text"
    path = write(tmp_path / "a.csv", "text,label\nZürich,x\n".encode("cp1252"))
    assert error(path) == f"{path}, line 2: not UTF-8 (byte 2); save it as UTF-8"


def test_quoted_names_say_that_tabs_and_line_feeds_are_quoted_too(tmp_path):
    data = '"text"\t"label"\n"a\tb\nc\td"\tx\n'
    path = write(tmp_path / "a.tsv", data)
    assert list(read_rows(path)) == [{"text": "a\tb\nc\td", "label": "x"}]


# --------------------------------------------------------------------------- JSON
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_of_objects(tmp_path, name, indent):
    rows = [{"text": "[a]"}, {"text": "b\n", "more": {"text": 1}}]
    path = write(tmp_path / name, "\ufeff\n" + json.dumps(rows, indent=indent))
    assert list(read_rows(path)) == rows
    path = write(tmp_path / name, "[]")
    assert list(read_rows(path)) == []


def test_the_places_of_an_arrays_objects(tmp_path):
    path = write(tmp_path / "a.json", '\n[\n{"text": "a"},\n{"text":\n"b"}\n]\n')
    assert [row.place for row in numbered_rows(path)] == [f"{path}, line 3", f"{path}, line 5"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('[{"text": "a"}, 3]', "line 1: not a JSON object"),
        ('[\n{"text": "a"}\n{"text": "b"}]', "line 3: not JSON: Expecting ','"),
        ('[\n{"text": "a"},', "line 2: not JSON: Expecting value"),
        ('[{"text": "a"}]\n{"text": "b"}', "line 2: not JSON: Expecting '['"),
        ('[\n{"n": ' + "9" * 5000 + "}]", "line 2: not JSON: Exceeds the limit"),
    ],
)
def test_a_wrong_array_is_one_line(tmp_path, data, message):
    assert message in error(write(tmp_path / "a.json", data))


def test_byte_order_marks_of_joined_files(tmp_path):
    part = '\ufeff{"text": "a"}\n{"text": "\ufeffb"}'
    texts = ["a", "\ufeffb"] * 3
    for join in ("\n", ""):  # the first files end with a line feed or not
        path = write(tmp_path / "a.jsonl", join.join([part] * 3))
        assert [row["text"] for row in read_rows(path)] == texts
    path = write(tmp_path / "a.txt", "\ufeffa\n\ufeffb\n")
    assert [row["text"] for row in read_rows(path)] == ["a", "b"]


# --------------------------------------------------------------------------- encodings
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_encodings_with_a_mark(tmp_path, encoding):
    texts = ["ශ්‍රී\u0a0d ලංකා", "", "🙂", "last"]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path = write(tmp_path / "a.txt", (mark + "\r\n".join(texts)).encode(encoding))
    assert [row["text"] for row in read_rows(path)] == texts


def test_a_broken_wide_file_is_one_line(tmp_path):
    path = write(tmp_path / "a.txt", "a\nb\nc".encode("utf-16")[:-1])
    assert "a.txt, line 3: not UTF-16" in error(path)
    path = write(tmp_path / "b.txt", "a\nb\0".encode("utf-16"))
    assert "b.txt, line 2: holds a NUL" in error(path)


def test_carriage_returns_alone_end_lines(tmp_path):
    path = write(tmp_path / "a.txt", b"a\r\rb")
    assert [row["text"] for row in read_rows(path)] == ["a", "", "b"]
    path = write(tmp_path / "a.csv", b"text;label\ra;x\rb;y\r")
    assert [row["text"] for row in read_rows(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("beginning", "advice"),
    [
        (b"PK\x03\x04", "a workbook's name ends in .xlsx"),
        (b"PAR1", "let its name end in .parquet"),
        (b"\x1f\x8b\x08", "unpack it"),
    ],
)
def test_a_file_that_is_no_text_is_called_by_its_name(tmp_path, beginning, advice):
    for name in ("a.csv", "a"):
        message = error(write(tmp_path / name, beginning + b"\0\xff"))
        assert message.endswith(f"no text; {advice}")


# --------------------------------------------------------------------------- guessing
@pytest.mark.parametrize(
    "data",
    [
        "text\tlabel\nThe soup.\tbad\n",
        "a b\tc d\ne\tf\ng\th\n",
        "id,text\n1,a\n",
        '"id","text"\n1,"a\nb"\n',
        "review;stars\nGood, really;5\nBad;1\n",
        "sep=;\na;b\n1;2\n",
        "text\na\nb\n",
    ],
)
def test_what_looks_like_a_table_needs_an_ending(tmp_path, monkeypatch, data):
    expected = "looks like a table (columns "
    for name in ("a", "a.data"):
        assert expected in error(write(tmp_path / name, data))
    stdin(monkeypatch, data.encode())
    assert expected in error("-")
    assert ".csv or .tsv" in error(write(tmp_path / "b", data))


def test_excels_unicode_text_is_refused_as_plain_text(tmp_path):
    data = "text\tlabel\r\nThe soup.\tbad\r\n".encode("utf-16")
    assert "looks like a table (columns text, label)" in error(write(tmp_path / "a.txt", data))
    rows = RowSource(tmp_path / "a.txt", file_format="tsv").rows()
    assert [row.row for row in rows] == [{"text": "The soup.", "label": "bad"}]


@pytest.mark.parametrize(
    "data",
    ["Well, yes.\nNo, never.\n", "one\ttab\nnone\n", "a;b\nc\n", "A | B\nC\n", "one word\n"],
)
def test_plain_text_without_an_ending_is_read(tmp_path, data):
    path = write(tmp_path / "a", data)
    assert [row["text"] for row in read_rows(path)] == data.splitlines()


def test_the_format_can_be_said(tmp_path, monkeypatch):
    stdin(monkeypatch, b"id,text\n1,a\n")
    (row,) = RowSource("-", file_format="csv").rows()
    assert row.row == {"id": "1", "text": "a"}
    path = write(tmp_path / "a.txt", "text\tlabel\na\tb\n")
    assert len(list(RowSource(path, file_format="text").rows())) == 2
    with pytest.raises(PalamError, match="there is no format 'xls'"):
        RowSource(path, file_format="xls")


# --------------------------------------------------------------------------- values
def test_a_number_or_a_missing_value_in_a_text_column_is_the_text_of_its_cell(tmp_path):
    values = [5, 3.0, 0.25, True, None, "007"]
    lines = "\n".join(json.dumps({"text": value}) for value in values)
    path = write(tmp_path / "a.jsonl", lines + '\n{"text": NaN}')
    texts = [text_of(row, "text", place) for place, row in numbered_rows(path)]
    assert texts == ["5", "3", "0.25", "True", "", "007", ""]


# --------------------------------------------------------------------------- counting
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}'),
        ("a.jsonl", '\ufeff{"text": "\ufeffa"}\r\n \r\n  {"text": "b"}\r\n'),
        ("a.jsonl", '{"text": "a"}\ufeff{"text": "b"}'),
        ("a.jsonl", '{"text": "a"}\r{"text": "b"}\r'),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"}\n'.encode("utf-16")),
        ("a.json", '[\n{"text":\n"a"}, {"text": "b"}]'),
        ("a.csv", 'text\n"a\nb"\n\n'),
        ("a.tsv", 'text\tlabel\na\tx\n"b\tx\n'),
        ("a.txt", "a\n\n"),
        ("a", '{"text": "a"}\n{"text": "b"}\n'),
    ],
)
def test_the_rows_of_a_file_are_counted(tmp_path, name, data):
    source = RowSource(write(tmp_path / name, data))
    assert source.count() == len(list(source.rows())) == 2


def test_lines_of_json_are_counted_without_being_read(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": no JSON}\n' * 1000)
    assert RowSource(path).count() == 2000


def test_the_rows_of_a_stream_are_not_counted(monkeypatch):
    stdin(monkeypatch, b"a\nb\n")
    source = RowSource("-")
    assert source.count() is None
    assert list(read_texts(source)) == ["a", "b"]


# --------------------------------------------------------------------------- streams
@pytest.fixture
def pipe(tmp_path):
    """A named pipe into which three lines are written once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("a\nb\nc\n",), daemon=True)
    writer.start()
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_is_opened_once(pipe):
    assert check_readable(pipe)
    source = RowSource(pipe)
    assert source.is_stream
    assert list(read_texts(source)) == ["a", "b", "c"]
    with pytest.raises(PalamError, match="cannot be read a second time; save what it gives"):
        list(read_texts(source))


def test_a_file_can_be_read_again(tmp_path, monkeypatch):
    source = RowSource(write(tmp_path / "a.txt", "a\nb"))
    assert list(read_texts(source)) == list(read_texts(source)) == ["a", "b"]
    assert not source.is_stream
    stdin(monkeypatch, b"a\n")
    source = RowSource("-")
    assert list(read_texts(source)) == ["a"]
    with pytest.raises(PalamError, match="standard input cannot be read a second time"):
        source.rows()


def test_what_cannot_be_read_is_refused_at_once(tmp_path):
    for path in (tmp_path, tmp_path / "none", "a\0b"):
        with pytest.raises(PalamError, match="cannot read"):
            check_readable(path)


def test_standard_input_that_is_closed_or_has_no_bytes(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert error("-") == "cannot read standard input: it is closed"
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nශ්‍රී\n"))
    assert list(read_texts("-")) == ["a", "ශ්‍රී"]


# --------------------------------------------------------------------------- languages
def test_the_language_of_a_row():
    assert language_of({"lang": " si-LK "}, "lang", "line 1") == "si-LK"
    for row in ({"lang": "english"}, {"lang": ""}, {"lang": None}, {}):
        with pytest.raises(PalamError, match="line 1: "):
            language_of(row, "lang", "line 1")
