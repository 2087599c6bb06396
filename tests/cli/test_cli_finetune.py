"""The baseline `finetune` in a recipe: with every seed, planned, recorded and tested as others."""

import json

import pytest
import yaml
from stopping import stop_finetuning

from palam.bench.baselines import finetune_checkpoints
from palam.bench.results import ResultsFolder

SMALL = {"languages": ["en", "si"], "split": "dev", "limit": 7}


@pytest.fixture
def recipe(data, base_folder, tmp_path):
    bases = {"encoder": str(base_folder("bert")), "llm": str(base_folder("llama"))}
    content = {
        "train": {"task": "sib200", "data": str(data), "device": "cpu", "dtype": "fp32", **bases},
        "read": SMALL,
        "seeds": [0, 1],
        "methods": {"most": {"baseline": "majority"}, "tuned": {"baseline": "finetune"}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def planned(palam):
    """`planned(recipe)`: the baseline's line of a dry run, in words."""

    def call(recipe):
        result = palam("bench", recipe, "--dry-run", "--tflops", 1)
        assert result.code == 0, result.err
        (row,) = (line.split() for line in result.out.splitlines() if line.startswith("tuned"))
        return row

    return call


def test_it_is_run_with_every_seed_at_the_rate_of_the_first(palam, recipe, tmp_path, jsonl):
    out = tmp_path / "out"
    result = palam("bench", recipe, "--out", out)
    assert result.code == 0, result.err
    cells = jsonl((out / "cells.jsonl").read_text())
    tuned = [cell for cell in cells if cell["method"] == "tuned"]
    assert [cell["seed"] for cell in tuned] == [0, 1]
    assert [cell["seed"] for cell in cells if cell["method"] == "most"] == [0]
    assert tuned[0]["lr"] == tuned[1]["lr"]
    assert tuned[0]["validation_loss"] != tuned[1]["validation_loss"]
    assert tuned[0]["trained_parameters"] > 40_000
    assert set(tuned[0]["results"]) == {"eng_Latn", "sin_Sinh"}
    predictions = jsonl((out / "predictions" / "tuned.1.jsonl").read_text())
    assert len(predictions) == 14
    report = palam("report", out, "--against", "tuned")
    assert report.code == 0, report.err
    assert "tuned" in report.out
    # What is finished is not repeated.
    before = (out / "cells.jsonl").read_text()
    assert palam("bench", recipe, "--out", out).code == 0
    assert (out / "cells.jsonl").read_text() == before


def test_it_is_resumed_within_a_run(palam, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_checkpoints, "SECONDS_BETWEEN", 0.0)
    recipe = changed(recipe, lr=[1e-3, 1e-4], epochs=2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert palam("bench", recipe, "--out", whole).code == 0
    stop_finetuning(monkeypatch, after=5)  # in the second run of four steps
    assert palam("bench", recipe, "--out", out).code == 130
    assert (out / "unfinished" / "tuned.0").is_dir()
    begun = stop_finetuning(monkeypatch, after=None)
    result = palam("bench", recipe, "--out", out)
    assert result.code == 0, result.err
    assert len(begun) == 3 * 4 - 5
    for seed in (0, 1):
        name = f"predictions/tuned.{seed}.jsonl"
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert not (out / "unfinished").exists()


def test_what_a_finished_cell_has_left_is_removed(palam, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_checkpoints, "SECONDS_BETWEEN", 0.0)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ResultsFolder, "remove_unfinished", stop)
        assert palam("bench", recipe, "--out", out).code == 130
    assert (out / "unfinished" / "tuned.0").is_dir()
    result = palam("bench", recipe, "--out", out)
    assert result.code == 0, result.err
    assert not (out / "unfinished").exists()


def stop(results, run):
    """In place of `remove_unfinished`: stopped after the cell of the baseline that keeps files."""
    if run.method == "tuned":
        raise KeyboardInterrupt


def test_stopped_before_anything_is_kept_it_leaves_nothing(palam, recipe, tmp_path, monkeypatch):
    stop_finetuning(monkeypatch, after=0)
    content = yaml.safe_load(recipe.read_text())
    del content["methods"]["most"]
    recipe.write_text(yaml.safe_dump(content))
    assert palam("bench", recipe, "--out", tmp_path / "out").code == 130
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_its_training(planned, recipe):
    row = planned(recipe)
    # Four rates with the first seed, one with the second; 3 epochs of 21 rows and as many to
    # validate on; 14 rows are read with each seed; 64 tokens a text.
    tokens = 64 * (5 * 3 * (21 + 21) + 2 * 14)
    assert row[1:3] == ["5", f"{tokens:,}"]


def changed(recipe, **settings):
    """The recipe, in which the baseline has these settings."""
    content = yaml.safe_load(recipe.read_text())
    content["methods"]["tuned"].update(settings)
    recipe.write_text(json.dumps(content))
    return recipe


def test_its_rates_and_epochs_are_the_recipes(palam, planned, recipe, tmp_path, jsonl):
    recipe = changed(recipe, lr=[1e-3, 1e-4], epochs=2)
    row = planned(recipe)
    # Two rates with the first seed, one with the second.
    assert row[1:3] == ["3", f"{64 * (3 * 2 * (21 + 21) + 2 * 14):,}"]
    out = tmp_path / "out"
    result = palam("bench", recipe, "--out", out)
    assert result.code == 0, result.err
    tuned = [cell for cell in jsonl((out / "cells.jsonl").read_text()) if cell["method"] == "tuned"]
    assert {cell["lr"] for cell in tuned} <= {1e-3, 1e-4}
    # Two epochs of 21 rows in batches of 16.
    assert [cell["steps"] for cell in tuned] == [4, 4]
    other = palam("bench", changed(recipe, epochs=1), "--out", out)
    assert other.code == 2
    assert "tuned" in other.err


def test_one_rate_is_enough(planned, recipe):
    row = planned(changed(recipe, lr=1e-3))
    assert row[1] == "2"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"layers": "last"}, "there is no setting layers"),
        ({"lr": []}, "lr is []; it must be a number, or a list of some to choose from"),
        ({"lr": [1e-4, 0]}, "lr is 0.0; it must be above 0"),
        ({"lr": "fast"}, "lr is 'fast'; it must be a number, or a list of some to choose from"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number of at least 1"),
    ],
)
def test_settings_that_are_not_right_are_refused(refused, recipe, settings, reason):
    line = refused("bench", changed(recipe, **settings), "--dry-run")
    assert f"method tuned: {reason}" in line
