"""Where a run is written: one run at a time."""

import os

import pytest
from helpers import killed_at

from palam.errors import PalamError
from palam.models.model_config import ModelConfig
from palam.training.align_run import run_alignment
from palam.training.config import DataConfig, RuntimeConfig
from palam.training.run import train
from palam.training.run_folder import RunFolder
from palam.utils.locks import output_lock

RUNTIME = RuntimeConfig(device="cpu", dtype="fp32")


@pytest.fixture
def run_to(settings, bases, data_folder):
    """By command, what runs it to a place."""

    def run_train(out, **options):
        return train(settings(max_steps=1), out, bases=bases, **options)

    def run_align(out):
        data = DataConfig(task="sib200", data=data_folder)
        return run_alignment(ModelConfig(), data, RUNTIME, out, bases=bases)

    return {"train": run_train, "align": run_align}


def refusal(run, out):
    with pytest.raises(PalamError) as caught:
        run(out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("command", ["train", "align"])
def test_the_second_of_two_runs_on_one_place_is_refused(run_to, tmp_path, command):
    out = tmp_path / "new" / "out"
    with output_lock(out):
        assert "is being written by another run" in refusal(run_to[command], out)
    run_to[command](out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_run_holds_its_place_until_its_end(run_to, settings, bases, interrupted, tmp_path):
    """Refused while training, and what the first run has is not touched."""
    out = tmp_path / "out"
    work = interrupted(settings(), out, 8)
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    with output_lock(out):
        for resume in (False, True):
            with pytest.raises(PalamError, match="another run"):
                train(settings(), out, bases=bases, resume=resume)
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    train(settings(), out, bases=bases, resume=True)


def test_a_process_without_the_others_is_refused(run_to, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(run_to["train"], tmp_path / "new" / "out")
    assert message.startswith("WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are")
    assert not list(tmp_path.iterdir())


def test_an_alignment_in_several_processes_is_refused(run_to, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(run_to["align"], tmp_path / "new" / "out")
    assert message.startswith("WORLD_SIZE is 2, but palam align is of one process")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")
    run_to["align"](tmp_path / "out")


def test_a_comparison_alone_is_of_one_process_too(run_to, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE" in refusal(run_to["align"], None)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
def test_a_place_is_usable_after_a_kill_while_its_working_folder_is_replaced(settings, tmp_path):
    config = settings()
    folder = RunFolder(tmp_path / "out")
    number = 1
    killed = True
    while killed:
        folder.create(config, {}, {})
        for name in ("checkpoint-1", "checkpoint-2"):
            (folder.work / name).mkdir()
            (folder.work / name / "model.safetensors").write_bytes(b"x")
        killed = killed_at(number, folder.create, config, {}, {})
        folder.check()
        number += 1
    assert number > 10
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
