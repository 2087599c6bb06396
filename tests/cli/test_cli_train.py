"""`palam train`: a bridge appears whole; options go before the YAML file; failures give advice."""

import json
import math

import pytest
import yaml

from palam import PalamModel
from palam.training.trainer import PalamTrainer


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def training(data, base_options, out):
    """The command that trains on the small task."""
    task = ("--task", "sib200", "--data", data, "--batch-size", 4)
    return ("train", *task, "--out", out, *base_options)


def settings_of(folder):
    return yaml.safe_load((folder / "settings.yaml").read_text())


def test_a_task(palam, training, out, tmp_path):
    result = palam(*training, "--fusion", "global_softmax", "--mapper", "mlp", "--epochs", 1)
    assert (result.code, result.out) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = {path.name for path in out.iterdir()}
    assert files >= {"config.json", "model.safetensors", "README.md"}
    assert files >= {"settings.yaml", "log.jsonl", "results.json"}
    assert PalamModel.from_pretrained(out).config.fusion == "global_softmax"
    results = json.loads((out / "results.json").read_text())
    assert (results["rows"], results["steps"]) == (21, 6)
    *_, saved, following = result.err.splitlines()
    assert saved == f"saved to {out}"
    assert following.startswith(f"next: palam evaluate {out} --task sib200 --data ")


def test_the_command_it_says_comes_next_works(palam, trained, data):
    task = ("--task", "sib200", "--data", data)
    assert palam("evaluate", trained, *task, "--device", "cpu").code == 0


def test_a_csv_file_of_ones_own(palam, base_options, out, tmp_path, jsonl):
    lines = ["head,kind"]
    for word in ("cat", "dog", "rice", "moon", "book", "team"):
        lines += [f"{word} is good,fine", f"The {word} fell,bad"]
    own = tmp_path / "own.csv"
    own.write_text("\n".join(lines) + "\n")
    columns = ("--text-column", "head", "--label-column", "kind")
    assert palam("train", "--file", own, *columns, "--out", out, *base_options).code == 0
    result = palam("classify", out, "--file", own, "--column", "head", "--device", "cpu")
    assert result.code == 0
    rows = jsonl(result.out)
    assert [row["head"] for row in rows][:2] == ["cat is good", "The cat fell"]
    assert {row["prediction"] for row in rows} <= {"fine", "bad"}


def test_raw_text(palam, base_options, out, tmp_path):
    raw = tmp_path / "raw.txt"
    raw.write_text("The dog jumps over the fox.\nI am going home today.\n" * 20)
    options = ("--text-file", raw, "--out", out, *base_options)
    assert palam("train", *options, "--epochs", 1).code == 0
    assert PalamModel.from_pretrained(out).config.task is None


def test_options_go_before_the_yaml_file_and_the_file_before_the_defaults(
    palam, training, out, tmp_path
):
    config = tmp_path / "run.yaml"
    config.write_text("fusion: last\nlr: 2e-3\nmax-steps: 2\ncompile: no\nseed: 7\ninit: random\n")
    options = ("--config", config, "--seed", 3, "--init", "solve")
    assert palam(*training, *options).code == 0
    settings = settings_of(out)
    expected = {"fusion": "last", "lr": 2e-3, "max_steps": 2, "compile": False, "seed": 3}
    expected |= {"init": "solve", "mapper": "linear"}
    assert {name: settings[name] for name in expected} == expected


def test_the_settings_of_a_run_are_a_yaml_file_for_the_next(palam, trained, out):
    assert palam("train", "--config", trained / "settings.yaml", "--out", out).code == 0
    assert settings_of(out) == settings_of(trained)
    weights = (out / "model.safetensors").read_bytes()
    assert weights == (trained / "model.safetensors").read_bytes()


def test_out_can_stand_in_the_yaml_file(palam, training, out, tmp_path):
    config = tmp_path / "run.yaml"
    elsewhere = tmp_path / "elsewhere"
    config.write_text(f"out: {elsewhere}\nmax_steps: 1\n")
    options = [option for option in training if option not in ("--out", out)]
    assert palam(*options, "--config", config).code == 0
    assert (elsewhere / "model.safetensors").is_file()


def test_a_checkpoint_is_replaced_by_the_next_run(palam, training, out):
    assert palam(*training, "--max-steps", 1, "--seed", 1).code == 0
    assert palam(*training, "--max-steps", 1, "--seed", 2).code == 0
    assert settings_of(out)["seed"] == 2


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(palam, training, tmp_path):
    result = palam(*training, "--init", "random", "--lr", "1e38")
    assert result.code == 2
    *_, line = result.err.splitlines()
    assert line.startswith("palam: error: the loss or its gradient is not finite at step ")
    assert "training rows [" in line
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    palam, training, out, tmp_path, monkeypatch
):
    training_step = PalamTrainer.training_step

    def poisoned(self, *args, **kwargs):
        if self.state.global_step == 7:
            self.model.bridge.boundary.data.fill_(math.nan)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(PalamTrainer, "training_step", poisoned)
    result = palam(*training)
    assert result.code == 2
    last = tmp_path / "out.partial" / "checkpoint-6"
    assert result.err.splitlines()[-1].endswith(f"the last good checkpoint is {last}")
    assert PalamModel.from_pretrained(last).bridge.boundary.isfinite().all()
    assert not out.exists()
    monkeypatch.undo()
    assert palam(*training, "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
