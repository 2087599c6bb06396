"""A bridge with two encoders through the commands: trained, evaluated, read, solved, planned."""

import json
import shutil

import pytest

from palam import PalamModel
from palam.models.bases import Bases, fingerprints

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def options(base_options, base_folder):
    return (*base_options, "--second-encoder", base_folder("t5"))


@pytest.fixture
def bridge(palam, data, options, tmp_path):
    out = tmp_path / "bridge"
    task = ("--task", "sib200", "--data", data, "--batch-size", 4, "--epochs", 1)
    result = palam("train", *task, *options, "--out", out)
    assert (result.code, result.out) == (0, ""), result.err
    return out


def test_the_bridge_says_what_it_is_between(palam, bridge, base_folder):
    config = json.loads((bridge / "config.json").read_text())
    assert config["second_encoder"] == str(base_folder("t5"))
    assert config["second_encoder_num_layers"] == 3
    info = palam("info", bridge).out
    assert "second encoder" in info
    model = PalamModel.from_pretrained(bridge)
    bases = Bases(model.encoder, model.llm)
    # Training changed none of them.
    assert fingerprints(bases, model.processor) == model.config.fingerprints
    assert set(model.config.fingerprints) == {"encoder", "second_encoder", "llm"}


def test_every_command_reads_with_both(palam, bridge, data, base_folder, tmp_path):
    task = ("--task", "sib200", "--data", data, "--languages", "si")
    assert palam("evaluate", bridge, *task, *CPU).code == 0
    texts = tmp_path / "texts.txt"
    texts.write_text("The team won.\nසහල් මිල.\nI am going home.\n", encoding="utf-8")
    one = palam("classify", bridge, "--file", texts, *CPU)
    twice = palam("classify", bridge, bridge, "--file", texts, *CPU)
    workers = palam("classify", bridge, "--file", texts, "--workers", 2, *CPU)
    assert (one.code, twice.code, workers.code) == (0, 0, 0), one.err + twice.err + workers.err
    assert workers.out == one.out == twice.out
    answer = palam("generate", bridge, "--text", "The team won.", "--max-new-tokens", 2, *CPU)
    assert answer.code == 0, answer.err
    moved = shutil.copytree(base_folder("t5"), tmp_path / "moved")
    again = palam("classify", bridge, "--file", texts, "--second-encoder", moved, *CPU)
    assert again.out == one.out


def test_another_second_encoder_is_refused(refused, bridge, trained, base_folder):
    text = ("--text", "The team won.", *CPU)
    other = ("--second-encoder", base_folder("xlmr"))
    message = refused("classify", bridge, *text, *other)
    assert "is not the second encoder that this bridge was trained with" in message
    assert refused("classify", trained, *text, *other) == (
        "this bridge has one encoder; give no second one"
    )


def test_a_second_encoder_that_is_not_there(refused, data, base_options, tmp_path):
    task = ("--task", "sib200", "--data", data, "--out", tmp_path / "out")
    message = refused("train", *task, *base_options, "--second-encoder", tmp_path / "none")
    assert str(tmp_path / "none") in message


def test_a_start_must_have_two_encoders_too(palam, data, options, trained, tmp_path):
    task = ("--task", "sib200", "--data", data, "--out", tmp_path / "out")
    result = palam("train", *task, *options, "--init-from", trained)
    assert result.code == 2
    assert f"{trained} has encoders: 1, this run has 2" in result.err
    assert not list(tmp_path.iterdir())


def test_solved_and_probed(palam, data, options, tmp_path):
    task = ("--task", "sib200", "--data", data, "--out", tmp_path / "out")
    result = palam("align", *task, *options)
    assert result.code == 0, result.err
    rows = [line.split("  ")[0] for line in result.out.splitlines()]
    assert [row for row in rows if row.startswith("second")] == [
        f"second encoder's layer {layer}" for layer in (1, 2, 3)
    ]
    assert palam("classify", tmp_path / "out", "--text", "The team won.", *CPU).code == 0


def test_planned_with_both(palam, base_options, options):
    def plan(*settings):
        result = palam("plan", *settings, "--rows", 100)
        assert result.code == 0, result.err
        first, *_ = result.out.splitlines()
        assert first.startswith("trained parameters ")
        return int(first.split()[-1].replace(",", ""))

    llm_width = 32
    second_width = 32
    assert plan(*options) - plan(*base_options) == second_width * llm_width


def test_a_published_bridge_names_no_folder(palam, bridge, tmp_path, hub):
    names = ("--encoder", "me/first", "--second-encoder", "me/second", "--llm", "me/llm")
    assert palam("push", bridge, "me/bridge", *names, "--license", "mit").code == 0
    pushed = hub.root
    texts = [path.read_text(errors="replace") for path in pushed.rglob("*") if path.is_file()]
    assert texts
    assert not any(str(tmp_path) in text for text in texts)
    card = next(pushed.rglob("README.md")).read_text()
    assert "- me/second" in card
