"""Workbooks as people save them: sheets, formulas, dates, merged and empty cells, damage."""

import datetime
import logging
import re
import shutil
import zipfile
from pathlib import Path

import openpyxl
import pytest
from helpers import read_rows, refusal

from palam.tasks.loading import task_from_file
from palam.tasks.readers import RowSource, check_readable, text_of


@pytest.fixture
def workbook(tmp_path):
    """Saves a workbook of some sheets, each a list of rows."""

    def save(*sheets, name="a.xlsx", merge=(), titles=("first", "second", "third")):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, rows in zip(titles, sheets, strict=False):
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
            for area in merge:
                sheet.merge_cells(area)
        book.save(tmp_path / name)
        return tmp_path / name

    return save


def rows_of(path, **settings):
    source = RowSource(path, **settings)
    rows = [numbered.row for numbered in source.rows()]
    assert source.count() == len(rows)
    return rows


def error(path, **settings):
    return refusal(lambda: list(RowSource(path, **settings).rows()))


def rewrite(path, part, change):
    """Change one part of a workbook's archive."""
    other = path.with_name("rewritten.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name == part else data)
    return other


SHEET = "xl/worksheets/sheet1.xml"


def test_a_workbook_is_a_table(workbook):
    path = workbook([["Article", "Topic"], ["ශ්‍රී ලංකා\nදෙවන පේළිය", "news"], ["007", "a"]])
    assert rows_of(path) == [
        {"Article": "ශ්‍රී ලංකා\nදෙවන පේළිය", "Topic": "news"},
        {"Article": "007", "Topic": "a"},
    ]
    places = [numbered.place for numbered in RowSource(path).rows()]
    assert places == [f"{path}, row 2", f"{path}, row 3"]
    assert list(read_rows(path, column="Article")) == rows_of(path)


def test_numbers_dates_and_truth_values_are_texts_in_a_text_column(workbook):
    values = [
        (3, "3"),
        (3.0, "3"),
        (0.1, "0.1"),
        (True, "True"),
        (None, ""),
        (datetime.date(2024, 1, 5), "2024-01-05"),
        (datetime.datetime(2024, 1, 5, 14, 30), "2024-01-05 14:30:00"),
        (datetime.time(9, 5), "09:05:00"),
    ]
    path = workbook([["text", "n"], *([value, 1] for value, _ in values)])
    texts = [text_of(row, "text", "") for row in rows_of(path)]
    assert texts == [text for _, text in values]


def test_labels_may_be_numbers_or_dates_of_a_sheet(workbook):
    path = workbook([["text", "label"], ["a", 1], ["b", 2.0], ["c", 1.0]])
    task, examples = task_from_file(path)
    assert list(task.labels) == ["1", "2"]
    assert [example.label for example in examples] == ["1", "2", "1"]
    path = workbook([["text", "label"], ["a", True], ["b", False]])
    assert list(task_from_file(path)[0].labels) == ["True", "False"]


def test_merged_cells_have_their_value_once(workbook):
    rows = [["text", "label"], ["a", "x"], ["b", None], ["c", "y"]]
    path = workbook(rows, merge=["B2:B3"])
    assert [row["label"] for row in rows_of(path)] == ["x", None, "y"]


def test_empty_rows_are_kept_but_at_the_end(workbook, tmp_path):
    path = workbook([[], ["text", "label"], ["a", "x"], [], [None, None], ["b", "y"]])
    book = openpyxl.load_workbook(path)
    book.active["A40"].font = openpyxl.styles.Font(bold=True)  # a cell without a value
    book.save(path)
    empty = {"text": None, "label": None}
    expected = [{"text": "a", "label": "x"}, empty, empty, {"text": "b", "label": "y"}]
    assert rows_of(path) == expected
    places = [numbered.place for numbered in RowSource(path).rows()]
    assert places == [f"{path}, row {number}" for number in (3, 4, 5, 6)]


def test_rows_that_the_file_does_not_mention_are_empty(workbook):
    path = workbook([["text"], ["a"], ["b"]])
    path = rewrite(path, SHEET, lambda xml: xml.replace(b'r="3"', b'r="5"').replace(b"A3", b"A5"))
    assert [row["text"] for row in rows_of(path)] == ["a", None, None, "b"]


def test_a_size_that_the_file_states_wrongly_loses_no_rows(workbook):
    path = workbook([["text", "label"], *([f"text {n}", "x"] for n in range(5))])
    path = rewrite(path, SHEET, lambda xml: re.sub(rb'ref="A1:B6"', b'ref="A1"', xml))
    assert len(rows_of(path)) == 5


def test_columns_without_a_name(workbook):
    path = workbook([[None, "text", None, "label", None], [0, "a", None, "x"], [1, "b", "c"]])
    assert rows_of(path) == [
        {"column A": 0, "text": "a", "column C": None, "label": "x"},
        {"column A": 1, "text": "b", "column C": "c", "label": None},
    ]
    path = workbook([["text"], ["a"], ["b", None, "left over"]])
    assert error(path) == f"{path}, row 3: a value in column C, to which the header gives no name"


def test_a_repeated_name_is_refused(workbook):
    path = workbook([["text", "label", "text"], ["a", "x", "b"]])
    message = error(path)
    assert message == f"{path}, row 1: the header names a column twice: text, label, text"


def test_the_header_may_be_of_numbers(workbook):
    assert rows_of(workbook([[2024, "b"], ["x", "y"]])) == [{"2024": "x", "b": "y"}]


def test_an_empty_workbook_is_said_to_be_empty(workbook):
    for sheet in ([], [["text", "label"]]):
        path = workbook(sheet)
        assert rows_of(path) == []
        assert refusal(task_from_file, path) == f"{path} is empty"


def test_a_workbook_with_prefixes_and_line_ends_in_its_xml_is_counted(workbook):
    path = workbook([["text", "label"], ["a", 1], ["b", 2], [None, 3]])

    def prefixed(xml):
        xml = re.sub(rb"<(/?)(?=[a-z])", rb"<\1x:", xml.replace(b"xmlns=", b"xmlns:x="))
        return xml.replace(b"<x:v>3</x:v>", b"<x:v></x:v>").replace(b"</x:c>", b"\n</x:c>")

    path = rewrite(path, SHEET, prefixed)
    assert [row["label"] for row in rows_of(path)] == [1, 2]


# --------------------------------------------------------------------------- sheets
def test_the_first_sheet_is_read_and_told(workbook, caplog):
    path = workbook([["text"], ["a"]], [["text"], ["b"], ["c"]], titles=("2019", "letters"))
    with caplog.at_level(logging.WARNING, "palam"):
        source = RowSource(path)
        assert [row.row["text"] for row in source.rows()] == ["a"]
        assert source.count() == 1
    assert caplog.messages == [f'{path} has 2 sheets: "2019" is read, of 2019, letters']


@pytest.mark.parametrize("sheet", ["letters", 2, "2"])
def test_a_sheet_is_named_or_numbered(workbook, caplog, sheet):
    path = workbook([["text"], ["a"]], [["text"], ["b"], ["c"]], titles=("2019", "letters"))
    assert [row["text"] for row in rows_of(path, sheet=sheet)] == ["b", "c"]
    assert caplog.messages == []


def test_a_name_comes_before_a_number(workbook):
    path = workbook([["text"], ["a"]], [["text"], ["b"]], titles=("2", "1"))
    assert [row["text"] for row in rows_of(path, sheet="2")] == ["a"]


@pytest.mark.parametrize("sheet", ["lettres", 3, "0", "²"])
def test_a_sheet_that_is_not_there(workbook, sheet):
    path = workbook([["text"]], [["text"]], titles=("2019", "letters"))
    assert error(path, sheet=sheet) == f'{path} has no sheet "{sheet}": it has 2019, letters'


def test_only_workbooks_have_sheets(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\na\n")
    message = refusal(RowSource, path, sheet=1)
    assert message == f"{path} has no sheets, which only workbooks (.xlsx) have"


def test_a_hidden_sheet_is_not_the_first(workbook):
    path = workbook([["text"], ["hidden"]], [["text"], ["shown"]])
    book = openpyxl.load_workbook(path)
    book.worksheets[0].sheet_state = "hidden"
    book.save(path)
    assert [row["text"] for row in rows_of(path)] == ["shown"]


# --------------------------------------------------------------------------- formulas
def test_formulas_are_their_values(workbook):
    path = workbook([["text", "n"], ["a", "=1+1"], ["=A2", 3], ["c", '=""']])
    message = error(path)
    assert message == (
        f"{path}, row 2: the formula =1+1 has no saved value; "
        "open the workbook in a spreadsheet program and save it"
    )

    def compute(xml):
        xml = re.sub(rb"(<f>1\+1</f>)<v ?/>|(<f>1\+1</f>)<v></v>", rb"<f>1+1</f><v>2</v>", xml)
        for formula, value in ((b"A2", b"a"), (b'""', b"")):
            pattern = rb"(<c r=\"\w+\")( t=\"\w+\")?(><f>" + formula + rb"</f>)<v( ?/|></v)>"
            xml = re.sub(pattern, rb'\1 t="str"\3<v>' + value + b"</v>", xml)
        return xml

    rows = rows_of(rewrite(path, SHEET, compute))
    assert rows == [{"text": "a", "n": 2}, {"text": "a", "n": 3}, {"text": "c", "n": None}]


# --------------------------------------------------------------------------- what is no workbook
def test_a_workbook_under_a_password(tmp_path):
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000))
    assert error(path) == (
        f"{path} is protected by a password, or an old workbook (.xls); "
        "save it as .xlsx without a password"
    )


def test_a_damaged_workbook(workbook, tmp_path):
    path = workbook([["text"], *(["a long text, and then some"] for _ in range(500))])
    data = path.read_bytes()
    damaged = {
        "cut": data[: len(data) // 2],
        "text": b"text,label\na,b\n",
        "empty": b"",
        "zeros": data[: len(data) // 3] + bytes(200) + data[len(data) // 3 + 200 :],
    }
    for kind, content in damaged.items():
        other = tmp_path / f"{kind}.xlsx"
        other.write_bytes(content)
        message = error(other)
        assert message.startswith(f"{other} is damaged or no Excel workbook")
        assert message.endswith("save it as .xlsx anew")


@pytest.mark.parametrize("part", [SHEET, "xl/workbook.xml", "[Content_Types].xml", "xl/styles.xml"])
def test_a_part_that_is_no_xml(workbook, part):
    path = workbook([["text"], ["a"]])
    message = error(rewrite(path, part, lambda xml: xml[: len(xml) // 2]))
    assert "is damaged or no Excel workbook" in message


def test_another_archive_is_no_workbook(tmp_path):
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("content.xml", "<x/>")
    assert "is damaged or no Excel workbook" in error(path)


def test_a_workbook_that_another_program_has_locked(workbook, monkeypatch):
    path = workbook([["text"], ["a"]])

    def locked(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    expected = f"cannot read {path}: Permission denied; close it in other programs"
    assert refusal(check_readable, path) == expected


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(".xls", "an old Excel workbook"), (".ODS", "an OpenDocument spreadsheet")],
)
def test_other_spreadsheets_are_to_be_saved_as_xlsx(tmp_path, ending, kind):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"\xd0\xcf\x11\xe0")
    assert refusal(RowSource, path) == f"{path} is {kind}; save it as .xlsx or .csv"


def test_a_workbook_with_macros_and_in_capitals(workbook):
    path = workbook([["text"], ["a"]])
    for name in ("b.xlsm", "B.XLSX"):
        shutil.copy(path, path.with_name(name))
        assert rows_of(path.with_name(name)) == [{"text": "a"}]


def test_a_workbook_is_not_read_from_a_stream():
    message = refusal(RowSource, "-", file_format="xlsx")
    assert message == ("standard input cannot be read as xlsx; save what it gives to a file first")


def test_openpyxl_is_named_where_it_is_missing(workbook, monkeypatch):
    path = workbook([["text"], ["a"]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert error(path) == '.xlsx needs openpyxl: pip install "palam[tables]"'
