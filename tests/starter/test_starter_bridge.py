"""`starter:bridge`: a small folder of the package, with a bridge between the starter models."""

import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import palam
from palam import PalamModel, generate
from palam.inference.scoring import score_labels
from palam.inference.task_prompt import label_template
from palam.models.checkpoint import load_bridge
from palam.models.publishing import REQUIRED
from palam.starter.resolve import resolve
from palam.starter.sources import BRIDGE

ROOT = Path(__file__).parents[2]
FOLDER = Path(palam.__file__).parent / "starter" / "bridge"
MAX_BYTES = 2_000_000
SINHALA = "වෛද්‍යවරු රෝහලේ වැඩ කරති."


def test_it_is_a_folder_of_the_package_for_which_nothing_is_fetched(monkeypatch):
    monkeypatch.setenv("PALAM_CACHE", "/dev/null/nowhere")
    assert resolve(BRIDGE) == str(FOLDER)


def test_the_folder_is_whole_and_small():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {*REQUIRED, "README.md"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_BYTES


def test_the_wheel_has_the_folder():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["palam"]
    packed = {path for pattern in patterns for path in (ROOT / "src" / "palam").glob(pattern)}
    assert set(FOLDER.iterdir()) <= packed


def test_it_is_a_general_bridge_between_the_starter_models():
    bridge = load_bridge(BRIDGE)
    config = bridge.config
    assert (config.encoder, config.llm) == ("starter:encoder", "starter:llm")
    assert config.task is None
    assert not config.adapter
    assert {weight.dtype for weight in bridge.state_dict().values()} == {torch.float32}


def test_weights_that_are_stored_in_half_precision_are_read_in_fp32():
    weights = load_bridge(BRIDGE).state_dict()
    with safe_open(FOLDER / "model.safetensors", "pt") as stored:
        assert set(stored.keys()) == set(weights)
        for name, weight in weights.items():
            assert torch.equal(weight, stored.get_tensor(name).float())


@pytest.mark.starter
def test_it_reads_without_any_training():
    model = PalamModel.from_pretrained(BRIDGE)
    assert model.processor.template.suffix == "\nThe same in English:"
    (answer,) = generate(model, [SINHALA], max_new_tokens=24)
    assert answer
    assert "hospital" in answer.lower()  # "doctors work in the hospital"


@pytest.mark.starter
def test_it_labels_without_any_training():
    model = PalamModel.from_pretrained(BRIDGE)
    model.processor.template = label_template(model.processor, model.config)
    labels = ["sports", "health", "politics"]
    texts = [SINHALA, "ቡድኑ ትናንት ጨዋታውን አሸነፈ።"]  # "the team won the game yesterday"
    likeliest = score_labels(model, texts, labels).argmax(1).tolist()
    assert [labels[place] for place in likeliest] == ["health", "sports"]
