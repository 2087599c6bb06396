"""Parquet files, and folders that `datasets` saved."""

import datetime
import decimal
import sys

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from helpers import read_rows, refusal

from palam.tasks.loading import task_from_file
from palam.tasks.readers import RowSource, text_of

ROWS = [{"text": "ශ්‍රී", "label": "b"}, {"text": "", "label": "a"}, {"text": None, "label": "b"}]


@pytest.fixture
def parquet(tmp_path):
    """Saves columns as a Parquet file."""

    def save(columns, name="a.parquet"):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    return save


def rows_of(path):
    source = RowSource(path)
    rows = [numbered.row for numbered in source.rows()]
    assert source.count() == len(rows)
    return rows


def error(path):
    return refusal(lambda: list(RowSource(path).rows()))


@pytest.mark.parametrize("without_pandas", [False, True])
def test_values_that_python_does_not_have_are_texts(parquet, monkeypatch, without_pandas):
    if without_pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    nanoseconds = pyarrow.array([1_700_000_000_123_456_789, None], pyarrow.timestamp("ns"))
    far = pyarrow.array([2**62, 0], pyarrow.timestamp("us"))
    first, second = rows_of(parquet({"text": ["a", "b"], "when": nanoseconds, "far": far}))
    assert (first["text"], second["text"]) == ("a", "b")
    assert first["when"] == "2023-11-14 22:13:20.123456789"
    assert str(2**62) in first["far"]
    assert second["when"] is None


NOT_READABLE = {
    "bytes": pyarrow.array([b"ab\xff\xfe"]).cast(pyarrow.string(), safe=False),
    "time zone": pyarrow.array([0], pyarrow.timestamp("us", tz="Mars/Phobos")),
}


@pytest.mark.parametrize("kind", NOT_READABLE)
def test_a_column_without_any_readable_form_is_named(parquet, kind):
    path = parquet({"text": ["a"], "note": NOT_READABLE[kind]})
    assert error(path).startswith(f"{path}: the column 'note' cannot be read: ")


def test_a_parquet_file_is_a_table(parquet):
    columns = {name: [row[name] for row in ROWS] for name in ("text", "label")}
    path = parquet(columns, "A.PARQUET")
    assert rows_of(path) == ROWS
    assert len(list(read_rows(path))) == 3
    assert next(RowSource(path).rows()).place == f"{path}, row 1"


def test_values_of_every_type_are_texts_or_json(parquet):
    columns = {
        "n": [1, None],
        "x": [3.0, float("nan")],
        "yes": [True, None],
        "day": [datetime.date(2024, 1, 5), None],
        "when": [datetime.datetime(2024, 1, 5, 9, 30), None],
        "price": [decimal.Decimal("1.50"), None],
        "tags": [["a", None], None],
        "bytes": ["ö".encode(), None],
        "kind": pyarrow.array(["a", None]).dictionary_encode(),
    }
    first, second = rows_of(parquet(columns))
    texts = {name: text_of(first, name, "") for name in columns if name != "tags"}
    assert texts == {
        "n": "1",
        "x": "3",
        "yes": "True",
        "day": "2024-01-05",
        "when": "2024-01-05 09:30:00",
        "price": "1.50",
        "bytes": "ö",
        "kind": "a",
    }
    assert first["tags"] == ["a", None]
    assert set(second.values()) == {None}
    assert text_of(second, "x", "") == ""


def test_pandas_writes_what_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.parquet"
    frame = pandas.DataFrame({"text": ["a", None], "when": pandas.to_datetime(["2024-01-05"] * 2)})
    frame.to_parquet(path)
    day = "2024-01-05"
    assert rows_of(path) == [{"text": "a", "when": day}, {"text": None, "when": day}]


def test_a_damaged_parquet_file_is_one_line(parquet, tmp_path):
    path = parquet({"text": [f"text {n}" for n in range(5000)]})
    data = path.read_bytes()
    middle = len(data) // 4
    for content in (data[: len(data) // 2], b"", b"text,label\n", b"PAR1" + bytes(50) + b"PAR1"):
        path.write_bytes(content)
        assert error(path).startswith(f"{path} is damaged or no Parquet file: ")
        assert refusal(RowSource(path).count).startswith(f"{path} is damaged or no Parquet file: ")
    path.write_bytes(data[:middle] + bytes(300) + data[middle + 300 :])
    assert error(path).startswith(f"{path} is damaged or no Parquet file: ")


def test_a_column_named_twice_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "names a column twice: text, text" in error(tmp_path / "a.parquet")


def test_parquet_is_read_in_parts(parquet, monkeypatch):
    monkeypatch.setattr("palam.tasks.parquet.BATCH_SIZE", 10)
    path = parquet({"text": [str(n) for n in range(95)]})
    assert [row["text"] for row in rows_of(path)] == [str(n) for n in range(95)]


def test_pyarrow_is_named_where_it_is_missing(parquet, monkeypatch):
    path = parquet({"text": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert error(path) == '.parquet needs pyarrow: pip install "palam[tables]"'


# --------------------------------------------------------------------------- datasets
@pytest.fixture
def labelled():
    """A data set with integers for its labels, one of them missing."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["news", "sport"])}
    )
    columns = {"text": ["a", "ශ්‍රී", "c"], "label": [1, 0, -1]}
    return datasets.Dataset.from_dict(columns, features=features)


LABELLED = [
    {"text": "a", "label": "sport"},
    {"text": "ශ්‍රී", "label": "news"},
    {"text": "c", "label": -1},
]


def test_a_saved_data_set_is_a_table(tmp_path, labelled):
    labelled.save_to_disk(tmp_path / "letters")
    assert rows_of(tmp_path / "letters") == LABELLED
    task, examples = task_from_file(tmp_path / "letters", notes=[])
    assert (task.name, list(task.labels)) == ("letters", ["sport", "news"])
    assert len(examples) == 2


def test_rows_that_were_chosen_from_a_data_set_are_those_read(tmp_path, labelled):
    labelled.select([2, 0]).save_to_disk(tmp_path / "letters")
    assert rows_of(tmp_path / "letters") == [LABELLED[2], LABELLED[0]]


def test_the_label_names_of_a_data_set_survive_in_parquet(tmp_path, labelled):
    labelled.to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == LABELLED


def test_a_folder_of_several_splits_is_refused(tmp_path, labelled):
    path = tmp_path / "letters"
    datasets.DatasetDict({"train": labelled, "test": labelled}).save_to_disk(path)
    assert refusal(RowSource, path) == (
        f"{path} holds the splits test, train: give one of these folders"
    )
    assert rows_of(path / "train") == LABELLED


def test_a_damaged_data_set_is_one_line(tmp_path, labelled):
    path = tmp_path / "letters"
    labelled.save_to_disk(path)
    next(path.glob("*.arrow")).write_bytes(b"no data")
    assert error(path).startswith(f"cannot read {path}: ")
    (path / "dataset_info.json").write_text("{")
    assert error(path).startswith(f"cannot read {path}: ")


def test_another_folder_is_no_table(tmp_path):
    assert refusal(RowSource, tmp_path).endswith(": Is a directory, and none that datasets saved")
