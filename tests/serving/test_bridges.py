"""Several bridges over base models that are loaded once."""

import pytest

from palam.errors import PalamError
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


def test_two_bridges_of_one_name_are_refused(saved, tmp_path):
    path = saved("one")
    with pytest.raises(PalamError, match="two bridges are called 'one'"):
        load_bridges([path, f"{path}/"], {})


def test_names():
    assert [bridge_name(path) for path in ("a/b", "a/b/", "b", "/")] == ["b", "b", "b", "/"]
