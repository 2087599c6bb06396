"""A results folder may be anyone's: what is wrong in its files is one line that names the file."""

import json
import lzma

import pytest
from helpers import refusal

from palam.bench.json_lines import append_row, read_rows
from palam.bench.predictions import read_packed, read_plain
from palam.bench.results import ResultsFolder

CELL = {"method": "a", "seed": 0, "seconds": 1.0, "results": {"en": 0.5}}
RUN = {"versions": {"palam": "1"}, "data": {"en": "0"}, "validation": "some"}
ROW = {"language": "en", "row": 0, "label": "a", "prediction": None}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": 3}, "its method is 3"),
        ({"seed": "0"}, "its seed is '0'"),
        ({"seed": True}, "its seed is True"),
        ({"seconds": None}, "its seconds is None"),
        ({"results": [0.5]}, "its results is [0.5]"),
        ({"results": {"en": float("nan")}}, "its results is {'en': nan}"),
        ({"results": {"en": 10**400}}, "its results is "),
        ({"layers": {"en": 3}}, "its layers is {'en': 3}"),
        ({"layers": {"en": [1.0], "si": []}}, "its layers are not as many"),
        ({"lr": float("inf")}, "its lr is inf"),
    ],
)
def test_a_cell_of_other_types(tmp_path, change, message):
    write(tmp_path / "cells.jsonl", CELL, CELL | change)
    line = refusal(ResultsFolder(tmp_path).cells)
    assert line.startswith(f"{tmp_path / 'cells.jsonl'}: {message}")


def test_a_cell_that_lacks_a_field(tmp_path):
    for name in CELL:
        write(tmp_path / "cells.jsonl", {k: value for k, value in CELL.items() if k != name})
        assert refusal(ResultsFolder(tmp_path).cells).endswith(f"it lacks {name}")


def test_what_a_cell_holds_beside_its_fields_stays(tmp_path):
    write(tmp_path / "cells.jsonl", CELL | {"way": "plain", "details": 3})
    (cell,) = ResultsFolder(tmp_path).cells()
    assert cell.to_row() == CELL | {"way": "plain", "details": 3}


def test_a_loss_that_did_not_stay_finite_is_read(tmp_path):
    run = {"method": "a", "lr": 1, "seed": 0, "validation_loss": float("inf")}
    write(tmp_path / "rates.jsonl", run)
    assert ResultsFolder(tmp_path).trained_runs()[0].validation_loss == float("inf")


@pytest.mark.parametrize("line", [b"3", b"null", b'["a"]', b'"a"'])
def test_a_line_that_is_no_mapping(tmp_path, line):
    (tmp_path / "curve.jsonl").write_bytes(line + b"\n")
    message = refusal(ResultsFolder(tmp_path).curve_points)
    assert message.endswith("curve.jsonl: line 1 is no row of names and values")


@pytest.mark.parametrize("line", [b'{"a": ', b"caf\xe9", b"[" * 100_000, b""])
def test_a_line_that_was_cut_off_is_passed_over(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line)
    append_row(path, {"b": "\u2028"})
    assert read_rows(path) == [{"b": "\u2028"}]


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"3", json.dumps(RUN | {"x": 1}).encode(), b"caf\xe9"]
)
def test_a_damaged_record_of_the_run(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    assert refusal(ResultsFolder(tmp_path).run_info).startswith(f"{tmp_path / 'run.json'}")


def test_a_record_of_other_types(tmp_path):
    write(tmp_path / "run.json", RUN)
    assert ResultsFolder(tmp_path).run_info().validation == "some"
    for name in RUN:
        write(tmp_path / "run.json", RUN | {name: 3})
        assert f"its {name} is 3" in refusal(ResultsFolder(tmp_path).run_info)


@pytest.mark.parametrize("content", ["a: *x", "x: 1", "- 1", "\0", "a: [" * 500])
def test_a_damaged_recipe(tmp_path, content):
    (tmp_path / "recipe.yaml").write_text(content)
    assert "recipe.yaml" in refusal(ResultsFolder(tmp_path).recipe)


@pytest.mark.parametrize(
    "change", [{"language": 3}, {"row": "0"}, {"label": None}, {"prediction": ["a"]}]
)
def test_a_prediction_of_other_types(tmp_path, change):
    path = tmp_path / "a.0.jsonl"
    write(path, ROW, ROW | {"other": 3})
    assert read_plain(path)["en"].rows == [0, 0]
    write(path, ROW | change)
    assert refusal(read_plain, path).startswith(f"{path}: its {next(iter(change))} is ")


@pytest.mark.parametrize("content", [3, [], {}, {"labels": [], "items": [], "runs": [3]}])
def test_packed_predictions_of_another_form(tmp_path, content):
    path = tmp_path / "predictions.json.xz"
    compressed = lzma.compress(json.dumps(content).encode())
    path.write_bytes(compressed)
    assert "holds no packed predictions" in refusal(read_packed, path)
    path.write_bytes(compressed[:-9])
    assert "holds no packed predictions" in refusal(read_packed, path)
