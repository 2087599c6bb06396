"""A results folder gives back what was put in, packed or not."""

import json
import os

import pytest
import yaml
from helpers import killed_at, refusal

from palam.bench.json_lines import append_row, read_rows
from palam.bench.pack import main, pack
from palam.bench.predictions import (
    LanguagePredictions,
    Run,
    group_by_language,
    read_packed,
    write_packed,
)
from palam.bench.report import summary
from palam.bench.results import RECIPE_FILE, Cell, ResultsFolder, RunInfo, TrainedRun
from palam.inference.evaluation import wilson
from palam.utils.files import check_replaceable

METHODS = {"last": {"fusion": "last"}, "most": {"baseline": "majority"}}
CORRECT = {("last", 0): 5, ("last", 1): 3, ("most", 0): 2}
"""Of six items, in either language."""


def predictions(correct):
    return [
        {
            "language": code,
            "row": row,
            "label": "sports",
            "prediction": "sports" if row < correct else None if row == 5 else "travel",
            "scores": {"sports": -1.0},
        }
        for code in ("sin_Sinh", "eng_Latn")
        for row in range(6)
    ]


@pytest.fixture
def folder(tmp_path):
    """The results of two methods, one of them with two seeds."""
    recipe = {
        "train": {"task": "sib200"},
        "read": {"split": "dev", "languages": ["si", "en"]},
        "seeds": [0, 1],
        "methods": METHODS,
    }
    path = tmp_path / "results"
    path.mkdir()
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    info = {
        "versions": {"palam": "0", "torch": "1", "transformers": "2"},
        "data": {},
        "validation": "dev",
    }
    (path / "run.json").write_text(json.dumps(info))
    results = ResultsFolder(path)
    for (method, seed), correct in CORRECT.items():
        results.write_predictions(Run(method, seed), predictions(correct))
        accuracies = {"sin_Sinh": correct / 6, "eng_Latn": correct / 6}
        results.add_cell(Cell(method=method, seed=seed, seconds=1.0, results=accuracies))
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_a_new_folder_is_ours_after_a_kill_at_any_file_operation(folder, tmp_path):
    recipe = ResultsFolder(folder).recipe()
    info = RunInfo(versions={"palam": "0"}, data={}, validation="dev")
    place = tmp_path / "new"
    results = ResultsFolder(place)
    number = 1
    while killed_at(number, results.create, recipe, info):
        check_replaceable(place, RECIPE_FILE)  # the next run begins
        results.create(recipe, info)
        assert (results.recipe(), results.run_info()) == (recipe, info)
        killed_at(number, results.remove_if_empty)
        check_replaceable(place, RECIPE_FILE)
        if place.exists():
            assert (results.recipe(), results.run_info()) == (recipe, info)
            results.remove_if_empty()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
        number += 1
    assert number > 10


def test_a_folder_is_kept_where_something_is_in_it(folder):
    results = ResultsFolder(folder)
    results.remove_if_empty()
    assert results.cells()


def test_a_line_is_an_object_and_its_rest_is_kept():
    row = {"method": "last", "lr": 0.1, "seed": 0, "validation_loss": 0.5, "rows": 7}
    run = TrainedRun.from_row(row)
    assert (run.lr, run.details, run.steps) == (0.1, {"rows": 7}, None)
    assert run.to_row() == row


def test_a_line_that_was_cut_off_is_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    append_row(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"b": ')
    append_row(path, {"c": 3})
    assert read_rows(path) == [{"a": 1}, {"c": 3}]


def test_packed_predictions_are_those_that_were_packed(tmp_path):
    language = LanguagePredictions([4, 7], ["sports", "ගෙදර"], ["sports", None])
    other = LanguagePredictions([4, 7], ["sports", "ගෙදර"], ["travel", "ගෙදර"])
    runs = {Run("last", 0): {"si": language}, Run("a.b", 3): {"si": other}}
    write_packed(tmp_path / "packed.xz", runs)
    assert read_packed(tmp_path / "packed.xz") == runs
    wrong = {Run("mean", 0): {"si": LanguagePredictions([4], ["sports"], [None])}}
    message = refusal(write_packed, tmp_path / "packed.xz", {**runs, **wrong})
    assert message == "mean, seed 0: other items of si than before"
    (tmp_path / "packed.xz").write_bytes(b"no")
    assert "holds no packed predictions" in refusal(read_packed, tmp_path / "packed.xz")


def test_packed_recalls_are_those_that_were_packed(tmp_path):
    rows = [
        {"language": "si", "row": 1, "label": "a text", "prediction": "a", "recall": 0.5},
        {"language": "si", "row": 2, "label": "another", "prediction": "", "recall": None},
        {"language": "si", "row": 3, "label": "a third", "prediction": "third", "recall": 1.0},
    ]
    read = group_by_language(rows)
    assert read["si"].rows == [1, 3]  # by the second nothing can be measured
    assert read["si"].mean == 0.75
    runs = {Run("mean", 0): read}
    write_packed(tmp_path / "packed.xz", runs)
    assert read_packed(tmp_path / "packed.xz") == runs


def test_a_packed_folder_is_reported_like_any_other(folder):
    before = summary(folder)
    pack(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "cells.jsonl",
        "predictions.json.xz",
        "recipe.yaml",
        "run.json",
        "summary.json",
    ]
    assert summary(folder) == before
    text = (folder / "summary.json").read_text()
    pack(folder)  # again, from what is packed
    assert (folder / "summary.json").read_text() == text


def test_a_run_after_the_packing_is_read_beside_it(folder):
    pack(folder)
    results = ResultsFolder(folder)
    results.write_predictions(Run("most", 1), predictions(6))
    results.add_cell(Cell(method="most", seed=1, seconds=1.0, results={}))
    assert ResultsFolder(folder).predictions(Run("most", 1))["sin_Sinh"].correct == 6
    assert ResultsFolder(folder).predictions(Run("most", 0))["sin_Sinh"].correct == 2
    pack(folder)
    assert ResultsFolder(folder).predictions(Run("most", 1))["sin_Sinh"].correct == 6
    assert not (folder / "predictions").exists()


def test_the_summary_can_be_rechecked_by_hand(folder):
    assert main([str(folder)]) == 0
    content = json.loads((folder / "summary.json").read_text())
    assert content["against"] == "last"
    last, most = content["methods"]["last"], content["methods"]["most"]
    for seed, correct in ((0, 5), (1, 3)):
        language = last["seeds"][str(seed)]["sin_Sinh"]
        assert (language["n"], language["correct"]) == (6, correct)
        assert language["accuracy"] == pytest.approx(correct / 6, abs=1e-6)
        assert language["ci95"] == pytest.approx(wilson(correct, 6), abs=1e-6)
    assert last["mean_of_seeds"] == pytest.approx([5 / 6, 3 / 6], abs=1e-6)
    assert last["mean"] == pytest.approx(4 / 6, abs=1e-6)
    assert "difference" not in last
    assert most["difference"]["mean"] == pytest.approx(2 / 6 - 4 / 6, abs=1e-6)
    assert most["wins"] == 0
    difference = most["differences"]["sin_Sinh"]
    assert difference["p"] == summary(folder).methods[1].differences["sin_Sinh"].p
    assert difference["win"] is False


def test_a_folder_that_lacks_predictions_is_not_packed(folder, capsys):
    (folder / "predictions" / "last.1.jsonl").unlink()
    before = sorted(folder.rglob("*"))
    assert main([str(folder)]) == 2
    message = capsys.readouterr().err
    assert message == f"palam: error: {folder} lacks the predictions of last, seed 1\n"
    assert sorted(folder.rglob("*")) == before


def test_rows_are_grouped_in_their_order():
    grouped = group_by_language(predictions(4))
    assert list(grouped) == ["sin_Sinh", "eng_Latn"]
    assert grouped["eng_Latn"].rows == list(range(6))
    assert grouped["eng_Latn"].correct == 4
