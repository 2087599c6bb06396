"""`palam train`: a bridge appears whole; options go before the YAML file; failures give advice."""

import json
import math
import os
import shlex
import threading

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


def test_a_bridge_learns_from_what_others_say_of_a_text(palam, training, trained, out, tmp_path):
    english = tmp_path / "english.txt"
    english.write_text("The team won.\nThe rice price went up.\nA book about the Moon.\n")
    labelled = tmp_path / "labelled.jsonl"
    files = ("--file", english, "--out", labelled, "--device", "cpu")
    assert palam("classify", trained, trained, *files).code == 0
    result = palam(*training, "--soft-label-file", labelled, "--epochs", 2)
    assert (result.code, result.out) == (0, ""), result.err
    assert json.loads((out / "results.json").read_text())["rows"] == 21 + 3
    assert settings_of(out)["soft_label_file"] == str(labelled)
    result = palam(*training, "--soft-label-file", english)
    assert result.code == 2
    assert 'english.txt, line 1: there is neither "scores" nor a column "' in result.err


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


# --------------------------------------------------------------------------- a file of one's own
@pytest.fixture
def letters(tmp_path):
    """A table with the user's own columns: 24 letters of two topics."""
    lines = ["Article;Topic"]
    for word in ("cat", "dog", "rice", "moon", "book", "team"):
        for number in range(2):
            lines += [f"The {word} is good {number};fine", f"The {word} fell {number};bad"]
    path = tmp_path / "my letters.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


COLUMNS = ("--text-column", "Article", "--label-column", "Topic")


def test_the_columns_are_remembered_and_the_next_command_works_on_the_same_file(
    palam, base_options, letters, out, tmp_path
):
    result = palam("train", "--file", letters, *COLUMNS, "--out", out, *base_options)
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert f"{letters.name}: 24 rows, 2 of them for validation" in lines
    assert {"labels (2): fine 12, bad 12", "labels (2): bad 12, fine 12"} & {*lines}
    assert "! few labelled rows: 24; 200 or more are usual" in lines
    assert any(line.startswith("0 of 24 texts (0%) are cut at 128 tokens") for line in lines)
    config = json.loads((out / "config.json").read_text())
    assert config["task"]["columns"] == {"text": "Article", "label": "Topic"}
    results = json.loads((out / "results.json").read_text())
    assert results["data"]["labels"] == {"fine": 12, "bad": 12}
    assert results["data"]["held_out"] == 2
    assert results["data"]["encoder"]["texts"] == 24
    accuracy = results["validation_accuracy"]
    majority = results["validation_majority_accuracy"]
    (line,) = [line for line in lines if line.startswith("validation (")]
    assert f"accuracy {accuracy:.1%}, macro-F1 {results['validation_macro_f1']:.3f}; " in line
    assert line.endswith(f"the most frequent label alone: accuracy {majority:.1%}")
    labelled = tmp_path / "my letters-labelled.csv"
    *_, following = lines
    expected = ["palam", "classify", out, "--file", letters, "--out", labelled]
    assert shlex.split(following.removeprefix("next: ")) == list(map(str, expected))
    assert palam(*expected[1:], "--device", "cpu").code == 0
    content = labelled.read_text(encoding="utf-8-sig")
    assert content.startswith("Article,Topic,prediction")
    assert len(content.splitlines()) == 25
    measured = palam("evaluate", out, "--file", letters, "--languages", "en", "--device", "cpu")
    assert measured.code == 0, measured.err


def test_a_file_from_a_pipe_is_read_once(palam, base_options, letters, out, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = letters.read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=[content], daemon=True)
    writer.start()
    own = ("--file", pipe, "--format", "csv", *COLUMNS, "--out", out)
    result = palam("train", *own, "--max-steps", 1, *base_options)
    assert result.code == 0, result.err
    assert result.err.splitlines()[-1] == f'next: palam classify {out} --text "..."'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sheet", "1"), "has no sheets"),
        (("--format", "ods"), "ods"),
        (("--text-column", "Body"), 'no column "Body"'),
        (("--label-column", "Article"), "24 rows with 24 different labels; that column holds no"),
    ],
)
def test_a_file_that_cannot_be_trained_on(refused, base_options, letters, out, options, message):
    own = ("--file", letters, *COLUMNS, *options, "--out", out)
    assert message in refused("train", *own, *base_options)


@pytest.mark.parametrize(
    ("option", "value"), [("--format", "csv"), ("--sheet", "1"), ("--merge-labels", None)]
)
def test_options_of_files_need_one(refused, out, option, value):
    options = [option] if value is None else [option, value]
    message = refused("train", "--task", "demo", *options, "--out", out)
    assert "give --file" in message


def test_labels_that_look_alike_are_made_one(palam, base_options, letters, out):
    letters.write_text(letters.read_text().replace(";bad", ";Bad ", 3))
    own = ("--file", letters, *COLUMNS, "--max-steps", 1, "--out", out)
    told = palam("train", *own, *base_options)
    assert "labels that differ only in case" in told.err
    assert len(json.loads((out / "config.json").read_text())["task"]["labels"]) == 3
    assert palam("train", *own, "--merge-labels", *base_options).code == 0
    labels = json.loads((out / "config.json").read_text())["task"]["labels"]
    assert labels == [["fine", "fine"], ["bad", "bad"]]


@pytest.mark.parametrize(
    ("step", "advice"),
    [
        (1, "no checkpoint was saved yet, so there is nothing to resume"),
        (7, "to resume, give the same command with --resume"),
    ],
)
def test_ctrl_c_says_whether_there_is_something_to_resume(
    palam, training, tmp_path, monkeypatch, step, advice
):
    training_step = PalamTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(PalamTrainer, "training_step", interrupted)
    result = palam(*training)
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"palam: stopped; {advice}"
    assert (tmp_path / "out.partial").exists() == (step == 7)
