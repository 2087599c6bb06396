"""`palam train`: a bridge appears whole; options go before the YAML file; a run that goes wrong says how to go on."""

import json
import math

import pytest
import yaml

from palam import PalamModel
from palam.training.config import TrainConfig
from palam.training.trainer import PalamTrainer


@pytest.fixture
def run_options(data, base_options, tmp_path):
    return (
        "--task",
        "sib200",
        "--data",
        data,
        "--out",
        tmp_path / "out",
        "--batch-size",
        4,
        *base_options,
    )


def settings_of(folder):
    return yaml.safe_load((folder / "settings.yaml").read_text())


def test_a_task(palam, run_options, tmp_path):
    result = palam(
        "train", *run_options, "--fusion", "global_softmax", "--mapper", "mlp", "--epochs", 1
    )
    assert (result.code, result.out) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "README.md",
        "settings.yaml",
        "log.jsonl",
        "results.json",
    } <= files
    assert PalamModel.from_pretrained(tmp_path / "out").config.fusion == "global_softmax"
    facts = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (facts["rows"], facts["steps"]) == (21, 6)
    *_, saved, following = result.err.splitlines()
    assert saved == f"saved to {tmp_path / 'out'}"
    assert following.startswith(f"next: palam evaluate {tmp_path / 'out'} --task sib200 --data ")


def test_the_command_it_says_comes_next_works(palam, trained, data):
    assert (
        palam("evaluate", trained, "--task", "sib200", "--data", data, "--device", "cpu").code == 0
    )


def test_a_csv_file_of_ones_own(palam, base_options, tmp_path, jsonl):
    rows = "".join(
        f"{word} is good,fine\nThe {word} fell,bad\n"
        for word in ("cat", "dog", "rice", "moon", "book", "team")
    )
    (tmp_path / "own.csv").write_text("head,kind\n" + rows)
    columns = ("--text-column", "head", "--label-column", "kind")
    result = palam(
        "train", "--file", tmp_path / "own.csv", *columns, "--out", tmp_path / "out", *base_options
    )
    assert result.code == 0
    result = palam(
        "classify",
        tmp_path / "out",
        "--file",
        tmp_path / "own.csv",
        "--column",
        "head",
        "--device",
        "cpu",
    )
    assert result.code == 0
    assert [row["head"] for row in jsonl(result.out)][:2] == ["cat is good", "The cat fell"]
    assert {row["prediction"] for row in jsonl(result.out)} <= {"fine", "bad"}


def test_raw_text(palam, base_options, tmp_path):
    (tmp_path / "raw.txt").write_text("The dog jumps over the fox.\nI am going home today.\n" * 20)
    options = ("--text", tmp_path / "raw.txt", "--out", tmp_path / "out", *base_options)
    assert palam("train", *options, "--epochs", 1).code == 0
    assert PalamModel.from_pretrained(tmp_path / "out").config.task is None


def test_options_go_before_the_yaml_file_and_the_file_before_the_defaults(
    palam, run_options, tmp_path
):
    (tmp_path / "run.yaml").write_text(
        "fusion: last\nlr: 2e-3\nmax-steps: 2\nfaithful: no\nseed: 7\ninit: random\n"
    )
    result = palam(
        "train", "--config", tmp_path / "run.yaml", "--seed", 3, *run_options, "--init", "solve"
    )
    assert result.code == 0
    found = settings_of(tmp_path / "out")
    names = ("fusion", "lr", "max_steps", "faithful", "seed", "init", "mapper")
    assert [found[name] for name in names] == ["last", 2e-3, 2, False, 3, "solve", "linear"]


def test_the_settings_of_a_run_are_a_yaml_file_for_the_next(palam, trained, tmp_path):
    assert (
        palam("train", "--config", trained / "settings.yaml", "--out", tmp_path / "again").code == 0
    )
    assert settings_of(tmp_path / "again") == settings_of(trained)
    weights = [
        (folder / "model.safetensors").read_bytes() for folder in (trained, tmp_path / "again")
    ]
    assert weights[0] == weights[1]


def test_out_can_stand_in_the_yaml_file(palam, run_options, tmp_path):
    (tmp_path / "run.yaml").write_text(f"out: {tmp_path / 'elsewhere'}\nmax_steps: 1\n")
    options = [one for one in run_options if one not in ("--out", tmp_path / "out")]
    assert palam("train", "--config", tmp_path / "run.yaml", *options).code == 0
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()


def test_a_checkpoint_is_replaced_by_the_next_run(palam, run_options, tmp_path):
    assert palam("train", *run_options, "--max-steps", 1, "--seed", 1).code == 0
    assert palam("train", *run_options, "--max-steps", 1, "--seed", 2).code == 0
    assert settings_of(tmp_path / "out")["seed"] == 2


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(palam, run_options, tmp_path):
    result = palam("train", *run_options, "--init", "random", "--lr", "1e38")
    assert result.code == 2
    *_, line = result.err.splitlines()
    assert line.startswith("palam: error: the loss or its gradient is not finite at step ")
    assert "training rows [" in line
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    palam, run_options, tmp_path, monkeypatch
):
    real = PalamTrainer.training_step

    def poisoned(self, *args, **kwargs):
        if self.state.global_step == 7:
            self.model.bridge.boundary.data.fill_(math.nan)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(PalamTrainer, "training_step", poisoned)
    result = palam("train", *run_options)
    assert result.code == 2
    last = tmp_path / "out.partial" / "checkpoint-6"
    assert result.err.splitlines()[-1].endswith(f"the last good checkpoint is {last}")
    assert PalamModel.from_pretrained(last).bridge.boundary.isfinite().all()
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert palam("train", *run_options, "--resume").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_help_gives_every_setting_with_its_help_and_default(palam):
    result = palam("train", "--help")
    assert (result.code, result.err) == (0, "")
    text = " ".join(result.out.split())
    for name, one in TrainConfig.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')} " in text
        if isinstance(one.default, str | int | float) and not isinstance(one.default, bool):
            assert f"[default: {one.default}]" in text
