"""A model on the hub: what `push_to_hub` uploads."""

import json

import pytest
from huggingface_hub import ModelCard

from palam import PalamError, PalamModel
from palam.models.publishing import CardDetails


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_is_pushed_as_its_checkpoint_would_be(tiny_model, base_folder, hub, tmp_path):
    tiny_model().save_pretrained(tmp_path / "out", card="---\n---\nAccuracy: 81 %\n")
    model = PalamModel.from_pretrained(tmp_path / "out")
    details = CardDetails(license="mit", languages=["si"], encoder="lab/encoder")
    options = {"private": True, "token": "t", "commit_message": "m"}
    address = model.push_to_hub("lab/bridge", details=details, **options)
    assert address == "https://huggingface.co/lab/bridge/tree/main"
    assert hub.calls == [
        ("create_repo", "lab/bridge", True, True),
        ("upload_folder", {"commit_message": "m"}),
    ]
    uploaded = files_of(hub.root / "main")
    saved = files_of(tmp_path / "out")
    assert uploaded.keys() == saved.keys()
    assert uploaded["model.safetensors"] == saved["model.safetensors"]
    folders = [str(base_folder(family).parent).encode() for family in ("bert", "llama")]
    for name, content in uploaded.items():
        assert not [folder for folder in folders if folder in content], name
    config = json.loads(uploaded["config.json"])
    assert (config["encoder"], config["llm"]) == ("lab/encoder", "llama")
    card = ModelCard(uploaded["README.md"].decode())
    assert "81 %" in card.text  # the run's own card
    assert card.data.license == "mit"
    assert card.data.language == ["si"]
    assert card.data.base_model == ["lab/encoder"]
    assert card.data.library_name == "palam"


def test_a_name_that_the_hub_does_not_take(tiny_model, hub):
    with pytest.raises(PalamError, match="Repo id"):
        tiny_model().push_to_hub("a/b/c")
    assert hub.calls == []
