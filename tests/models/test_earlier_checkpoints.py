"""Checkpoints of before 0.1.0, which have other names for some settings, load and mean the same."""

import json

import pytest
import torch
from helpers import PROMPT, batch_of, state_hash

from palam import PalamModel, PalamProcessor
from palam.models.checkpoint import load_bridge, load_weights_from

EARLIER_CONFIG = {"llm_only": "direct"}
EARLIER_FUSION_OPTIONS = {"paper_temperature": "faithful"}
EARLIER_PROCESSOR = {"llm_only_max_length": "direct_max_length", "append_source_tokens": "augment"}
CASES = {
    "no normalisation": {"fusion": "mean"},
    "normalised": {"fusion": "mean", "normalize": "layer"},
    "the paper's temperature": {"fusion": "global_softmax", "paper_temperature": True},
    "a rank": {"fusion": "transformer_softmax", "rank": 4, "normalize": "layer"},
    "source tokens": {"fusion": "last", "append_source_tokens": True},
}


def renamed(content, names):
    return {names.get(name, name): value for name, value in content.items()}


def edit(path, change):
    content = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def config_of_before(content):
    options = renamed(content["fusion_options"], EARLIER_FUSION_OPTIONS)
    if options["normalize"] == "none":  # the fusions' default, which was not saved
        del options["normalize"]
    return {**renamed(content, EARLIER_CONFIG), "fusion_options": options}


def processor_of_before(content):
    earlier = renamed(content, EARLIER_PROCESSOR)
    assert earlier.pop("tokenization") == 1  # the only one there was
    return earlier


def first_processor(content):
    """As it was before revisions and source tokens were recorded."""
    earlier = processor_of_before(content)
    for name in ("encoder_revision", "llm_revision", "augment"):
        del earlier[name]
    return earlier


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_an_earlier_checkpoint_means_the_same(tiny_model, tmp_path, options):
    model = tiny_model("xlmr", "llama", mode="prompt", prompt=PROMPT, **options)
    model.processor.tokenization = 1
    folder = tmp_path / "out"
    model.save_pretrained(folder)
    edit(folder / "config.json", config_of_before)
    edit(folder / "processor_config.json", processor_of_before)
    written = (folder / "config.json").read_text() + (folder / "processor_config.json").read_text()
    for name in ("llm_only", "paper_temperature", "append_source_tokens"):
        assert name not in written

    loaded = PalamModel.from_pretrained(folder)
    with torch.no_grad():
        expected = model(**batch_of(model)).logits
        assert torch.equal(loaded(**batch_of(loaded)).logits, expected)
    assert loaded.config.fusion_options == model.config.fusion_options
    assert loaded.processor.append_source_tokens == model.processor.append_source_tokens
    loaded.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "new")
    for name in ("config.json", "processor_config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_a_baseline_of_before_is_one(tiny_model, tmp_path):
    model = tiny_model(append_source_tokens=True)
    model.processor.tokenization = 1
    model.config.llm_only = True
    model.processor.llm_only_max_length = 77
    model.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", config_of_before)
    edit(tmp_path / "processor_config.json", processor_of_before)
    loaded = PalamModel.from_pretrained(tmp_path)
    assert loaded.config.llm_only
    assert loaded.processor.llm_only_max_length == 77


def test_the_first_processors_appended_no_source_tokens(tiny_model, tmp_path):
    model = tiny_model()
    model.processor.tokenization = 1
    model.save_pretrained(tmp_path)
    edit(tmp_path / "processor_config.json", first_processor)
    processor = PalamProcessor.from_pretrained(tmp_path)
    assert processor.tokenization == 1
    assert processor.append_source_tokens is False
    assert processor.encoder_revision is processor.llm_revision is None


def test_training_starts_from_one(tiny_model, tmp_path):
    options = {"fusion": "global_softmax", "paper_temperature": True}
    start = tiny_model(seed=1, **options)
    start.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", config_of_before)
    bridge = tiny_model(**options).bridge
    load_weights_from(bridge, tmp_path)
    assert state_hash(bridge) == state_hash(start.bridge) == state_hash(load_bridge(tmp_path))
