"""A task's own settings on the command line: what is said > the YAML file > the task > default."""

from dataclasses import replace

import pytest
import yaml

from palam.tasks.registry import TASKS

OWN = {"fusion": "last", "init": "random", "lr": 0.004, "epochs": 1, "max_length": 24}


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    monkeypatch.setitem(TASKS, "sib200", replace(TASKS["sib200"], settings=OWN))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def training(data, base_options, out):
    """The command that trains on the small task."""
    task = ("--task", "sib200", "--data", data, "--batch-size", 8)
    return ("train", *task, "--out", out, *base_options)


def settings_of(folder):
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    return {name: settings[name] for name in OWN}


def test_they_are_taken_told_of_and_recorded(palam, training, out):
    result = palam(*training)
    assert result.code == 0, result.err
    assert settings_of(out) == OWN
    told = (
        "settings of the task sib200: fusion last, init random, lr 0.004, epochs 1, max_length 24"
    )
    assert result.err.splitlines().count(told) == 1


def test_the_recorded_settings_repeat_the_run(palam, training, out, tmp_path, monkeypatch):
    assert palam(*training).code == 0
    monkeypatch.setitem(TASKS, "sib200", replace(TASKS["sib200"], settings={"lr": 0.1}))
    again = tmp_path / "again"
    assert palam("train", "--config", out / "settings.yaml", "--out", again).code == 0
    assert settings_of(again) == OWN
    weights = (out / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == weights


def test_an_option_goes_before_them_even_if_it_says_the_default(palam, training, out):
    result = palam(*training, "--lr", "1e-3", "--epochs", 1)
    assert result.code == 0, result.err
    assert settings_of(out) == {**OWN, "lr": 1e-3}
    assert "lr" not in next(line for line in result.err.splitlines() if "of the task" in line)


def test_a_yaml_file_goes_before_them_and_an_option_before_both(palam, training, out, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("lr: 1e-3\nmax_length: 16\n")
    assert palam(*training, "--config", config, "--max-length", 32).code == 0
    assert settings_of(out) == {**OWN, "lr": 1e-3, "max_length": 32}


def test_another_fusion_is_trained_as_by_default(palam, training, out):
    assert palam(*training, "--fusion", "mean").code == 0
    of_method = {"fusion": "mean", "init": "solve", "lr": 1e-3}
    assert settings_of(out) == {**OWN, **of_method}


def test_the_task_may_stand_in_the_yaml_file(palam, data, base_options, out, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"task: sib200\ndata: {data}\n")
    assert palam("train", "--config", config, "--out", out, *base_options).code == 0
    assert settings_of(out) == OWN


def test_a_run_is_resumed_with_them(palam, training, out, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("palam.training.run.TrainingRun.validate", stop)
        assert palam(*training).code == 130
    result = palam(*training, "--resume")
    assert result.code == 0, result.err
    assert settings_of(out) == OWN


def test_a_plan_has_them_too(palam, base_options):
    plan = ("plan", "--rows", 160, "--tflops", 1, *base_options)

    def steps(*options):
        result = palam(*plan, *options)
        assert result.code == 0, result.err
        (line,) = (line for line in result.out.splitlines() if line.startswith("all steps"))
        return line.split()[2]

    assert steps() == "30:"
    assert steps("--task", "sib200") == "10:"
    assert steps("--task", "sib200", "--epochs", 3) == "30:"
    assert palam(*plan, "--task", "nothing").code == 2


def test_a_task_with_a_setting_that_does_not_exist_is_one_line(refused, training, monkeypatch):
    monkeypatch.setitem(TASKS, "sib200", replace(TASKS["sib200"], settings={"rate": 1}))
    line = refused(*training)
    assert line.startswith("task \"sib200\": there is no setting 'rate' for a task; ")
