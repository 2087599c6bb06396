"""Several bridges over base models that are loaded once."""

import json
import shutil
from pathlib import Path

import pytest

from palam.errors import PalamError
from palam.models import processing
from palam.serving.bridges import bridge_name, load_bridges


@pytest.fixture
def saved(tiny_model, tmp_path):
    def save(name, **options):
        model = tiny_model(**options)
        lora = name.startswith("lora")
        if lora:
            model.add_lora(rank=2)
        model.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


def test_bridges_over_the_same_bases_share_them(saved):
    paths = [saved("one"), saved("two", fusion="mean"), saved("three", llm="qwen")]
    one, two, three = [bridge.model for bridge in load_bridges(paths, {})]
    assert one.llm is two.llm is not three.llm
    assert one.encoder is two.encoder is three.encoder
    assert one.bridge is not two.bridge


def test_an_llm_with_a_lora_is_not_shared(saved):
    pytest.importorskip("peft")
    paths = [saved("one"), saved("lora"), saved("two")]
    one, lora, two = [bridge.model for bridge in load_bridges(paths, {})]
    assert one.llm is two.llm is not lora.llm
    assert one.encoder is lora.encoder
    assert not any("lora" in name for name, _ in one.llm.named_parameters())


def test_bases_at_the_same_revision_are_shared(saved, tmp_path):
    """A folder has no revisions, so that the same files serve for all of them."""
    revisions = {"one": "v1", "two": "v1", "three": "v2", "four": None}
    paths = [saved(name) for name in revisions]
    for path, revision in zip(paths, revisions.values(), strict=True):
        for file in ("config.json", "processor_config.json"):
            content = json.loads(Path(path, file).read_text())
            content |= {"llm_revision": revision, "encoder_revision": revision}
            Path(path, file).write_text(json.dumps(content))
    one, two, three, four = [bridge.model for bridge in load_bridges(paths, {})]
    for base in ("llm", "encoder"):
        loaded = [getattr(model, base) for model in (one, two, three, four)]
        assert loaded[0] is loaded[1]
        assert len({id(model) for model in loaded}) == 3
    assert (two.processor.llm_revision, two.processor.encoder_revision) == ("v1", "v1")


def test_the_tokenizers_of_shared_bases_are_at_their_revision(saved, monkeypatch):
    asked = []
    load = processing.load_tokenizer

    def load_tokenizer(name, revision=None):
        asked.append(revision)
        return load(name, revision)

    path = saved("one")
    for file in ("config.json", "processor_config.json"):
        content = json.loads(Path(path, file).read_text())
        content |= {"llm_revision": "v1", "encoder_revision": "v2"}
        Path(path, file).write_text(json.dumps(content))
    shutil.copytree(path, f"{path}-again")
    monkeypatch.setattr(processing, "load_tokenizer", load_tokenizer)
    load_bridges([path, f"{path}-again"], {})
    assert asked == ["v2", "v1"] * 2


def test_two_bridges_of_one_name_are_refused(saved, tmp_path):
    path = saved("one")
    with pytest.raises(PalamError, match="two bridges are called 'one'"):
        load_bridges([path, f"{path}/"], {})


def test_names():
    assert [bridge_name(path) for path in ("a/b", "a/b/", "b", "/")] == ["b", "b", "b", "/"]
