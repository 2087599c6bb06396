"""Files as spreadsheets want them; what a format cannot hold is told."""

import csv
import io
import logging

import openpyxl
import pyarrow.parquet
import pytest
from helpers import refusal

from palam.tasks import workbook_writer
from palam.tasks.writers import output_format, write_rows


def written(rows, columns, file_format):
    file = io.BytesIO()
    write_rows(rows, columns, file, file_format)
    return file.getvalue()


def sheet_of(rows, columns):
    return openpyxl.load_workbook(io.BytesIO(written(rows, columns, "xlsx"))).worksheets[0]


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSON", "json"),
        ("a.csv", "csv"),
        ("a.tsv", "tsv"),
        ("a.tab", "tsv"),
        ("letters.2024.XLSX", "xlsx"),
        ("a.parquet", "parquet"),
        ("a.txt", "jsonl"),
        ("a", "jsonl"),
        ("-", "jsonl"),
    ],
)
def test_the_ending_tells_the_format(name, file_format):
    assert output_format(name) == file_format


@pytest.mark.parametrize("ending", ["xls", "ods", "xlsm", "XLSB"])
def test_the_endings_of_other_spreadsheets_are_refused(ending):
    message = refusal(output_format, f"a.{ending}")
    assert (
        message
        == f"cannot write a.{ending} as .{ending.lower()}; let its name end in .xlsx or .csv"
    )


def test_csv_is_as_excel_and_rfc_4180_have_it():
    rows = [{"text": 'ශ්‍රී, "a"\nb', "n": 3.0}, {"text": None, "n": True}, {"n": [1]}]
    data = written(rows, ["text", "n"], "csv")
    assert data.startswith(b"\xef\xbb\xbftext,n\r\n")
    table = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert table == [["text", "n"], ['ශ්‍රී, "a"\nb', "3"], ["", "True"], ["", "[1]"]]


def test_numbers_and_truth_values_are_such_in_a_workbook():
    rows = [{"a": 5, "b": 0.25, "c": True, "d": None, "e": 10**15, "f": float("nan")}]
    header, cells = sheet_of(rows, list("abcdef")).iter_rows(values_only=True)
    assert header == tuple("abcdef")
    assert cells == (5, 0.25, True, None, "1000000000000000", None)


@pytest.mark.parametrize("text", ["=1+1", '=HYPERLINK("http://a")', "+1", "-1", "@a", "#REF!"])
def test_what_looks_like_a_formula_is_a_text(text):
    sheet = sheet_of([{text: text}], [text])
    for cell in (sheet["A1"], sheet["A2"]):
        assert (cell.value, cell.data_type) == (text, "s")


def test_what_a_format_cannot_hold_is_replaced_and_told(caplog):
    rows = [{"text": "bell\a"}, {"text": "\ud800\uffff\0"}, {"text": "fine"}]
    with caplog.at_level(logging.WARNING, "palam"):
        sheet = sheet_of(rows, ["text"])
    assert [cell.value for cell in sheet["A"]] == ["text", "bell�", "���", "fine"]
    expected = "cells with characters that .xlsx cannot hold, which are replaced by �: 2"
    assert caplog.messages == [expected]
    caplog.clear()
    assert "bell\a\r\n��" in written(rows, ["text"], "csv").decode().replace("\uffff", "")
    assert caplog.messages == [expected.replace("xlsx", "csv").replace("2", "1")]


@pytest.mark.parametrize(("sign", "most"), [("a", 32_767), ("🙂", 16_383), ("\r", 4_681)])
def test_a_text_that_is_too_long_for_a_cell_is_cut_and_told(caplog, sign, most):
    with caplog.at_level(logging.WARNING, "palam"):
        sheet = sheet_of([{"text": sign * most}], ["text"])
        assert caplog.messages == []
        sheet = sheet_of([{"text": sign * (most + 1)}], ["text"])
    assert sheet["A2"].value == (sign * most).replace("\r", "_x000D_")
    (message,) = caplog.messages
    assert "32,767 characters that .xlsx can hold, after which they are cut: 1" in message


def test_more_rows_or_columns_than_a_sheet_holds_are_refused(monkeypatch):
    monkeypatch.setattr(workbook_writer, "MAX_ROWS", 3)
    written([{"a": 1}] * 2, ["a"], "xlsx")
    message = refusal(written, [{"a": 1}] * 3, ["a"], "xlsx")
    assert message.startswith("more than the 2 rows that a sheet holds below its header; write")
    monkeypatch.setattr(workbook_writer, "MAX_COLUMNS", 1)
    assert refusal(written, [], ["a", "b"], "xlsx").startswith("2 columns are more than the 1 of")


@pytest.mark.parametrize("file_format", ["csv", "tsv", "xlsx", "parquet"])
def test_a_column_that_only_a_later_row_has_is_refused(file_format):
    message = refusal(written, [{"a": 1}, {"a": 1, "b": 2}], ["a"], file_format)
    assert message.startswith('row 2 has a column "b" that the rows before it did not have; ')


def test_the_types_of_a_parquet_files_columns():
    rows = [
        {"i": 1, "f": 1, "b": True, "t": "a", "mixed": 1, "big": 2**63, "none": None},
        {"i": 2**62, "f": 0.5, "b": False, "t": None, "mixed": "x", "big": 1, "none": None},
    ]
    table = pyarrow.parquet.read_table(io.BytesIO(written(rows, list(rows[0]), "parquet")))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "i": "int64",
        "f": "double",
        "b": "bool",
        "t": "string",
        "mixed": "string",
        "big": "string",
        "none": "string",
    }
    assert table["mixed"].to_pylist() == ["1", "x"]
    assert table["big"].to_pylist() == ["9223372036854775808", "1"]


@pytest.mark.parametrize("file_format", ["jsonl", "json", "csv", "tsv"])
def test_rows_are_written_as_they_come(file_format):
    """What is written before an error comes is there: nothing is held back."""
    file = io.BytesIO()

    def rows():
        yield {"text": "first"}
        assert b"first" in file.getvalue()
        yield {"text": "second"}

    write_rows(rows(), ["text"], file, file_format)
    assert b"second" in file.getvalue()


@pytest.mark.parametrize(("file_format", "package"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_a_missing_package_is_named(monkeypatch, file_format, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    message = refusal(written, [], ["a"], file_format)
    assert message == f'.{file_format} needs {package}: pip install "palam[tables]"'
