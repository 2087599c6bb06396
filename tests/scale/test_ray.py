"""A folder of Parquet files read with Ray Data on this machine."""

import pyarrow
import pyarrow.parquet
import pytest
from helpers import refusal

from palam.scale.reader import BridgeReader, ReaderLoading
from palam.scale.work import Labelling

pytest.importorskip("ray")
from palam.scale.ray import RayConfig, check_rows, parquet_files, read_parquet_folder, rows_of_each

pytestmark = pytest.mark.ray
IDENTITY = {"labels": ["good", "bad"]}


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(3):
        ids = list(range(40 * number, 40 * number + 40))
        rows = {"id": ids, "text": [f"the fox {i % 7} " * (1 + i % 4) for i in ids]}
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / f"part-{number}.parquet")
    return folder


@pytest.fixture
def reader(bridge):
    loading = ReaderLoading(device="cpu", dtype="fp32")
    return BridgeReader(str(bridge), Labelling(("good", "bad")), loading=loading)


def test_rows_come_out_once_as_the_reader_gives_them(reader, texts, tmp_path):
    out = tmp_path / "out"
    read_parquet_folder(reader, str(texts), out, IDENTITY, RayConfig(actors=2))
    rows = pyarrow.parquet.read_table(out).sort_by("id")
    expected = reader(pyarrow.parquet.read_table(texts).sort_by("id"))
    assert rows.column_names == ["id", "text", "row_hash", *expected.column_names[2:]]
    for name in ("id", "prediction", "error"):
        assert rows[name].to_pylist() == expected[name].to_pylist()
    assert rows["good"].to_pylist() == pytest.approx(expected["good"].to_pylist(), abs=1e-4)
    assert not (tmp_path / "out.partial").exists()
    files = sorted(out.rglob("*"))
    read_parquet_folder(reader, str(texts), out, IDENTITY)  # all is done
    assert sorted(out.rglob("*")) == files
    other = {"labels": ["good", "worse"]}
    assert "is of another job" in refusal(read_parquet_folder, reader, str(texts), out, other)


def test_other_files_and_a_column_that_ray_needs_are_refused(texts):
    (texts / "more.csv").write_text("text\na\n")
    assert "is no Parquet file" in refusal(parquet_files, str(texts))
    (texts / "more.csv").unlink()
    pyarrow.parquet.write_table(pyarrow.table({"row_hash": [1]}), texts / "part-0.parquet")
    assert 'has a column "row_hash"' in refusal(parquet_files, str(texts))


def test_rows_that_are_missing_are_told(texts, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), tmp_path / "a.parquet")
    line = refusal(check_rows, parquet_files(str(texts)), tmp_path)
    assert "has 1 rows, its input 120" in line


def test_every_actor_gets_rows_and_none_too_many():
    assert [rows_of_each(rows, 2) for rows in (10, 8000, 10**8)] == [256, 1000, 5000]


def test_no_actor_is_refused():
    assert "at least one actor" in refusal(RayConfig, actors=0)
