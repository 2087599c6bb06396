"""`palam inspect` and `palam info`."""

import json

import pytest

from palam import PalamModel
from palam.inference.layer_weights import layer_weights

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.mark.parametrize(
    ("suffix", "start"), [(".html", b"<!doctype html>"), (".json", b'{"text"')]
)
def test_inspect(palam, trained, tmp_path, suffix, start):
    text = "I am going home."
    view = tmp_path / f"view{suffix}"
    result = palam("inspect", trained, "--text", text, "--out", view, *CPU)
    assert result.code == 0
    tokens = layer_weights(PalamModel.from_pretrained(trained), text)[0]
    first_words = [line.split()[0] for line in result.out.splitlines()]
    assert [word for word in first_words if word in tokens] == tokens
    assert result.err == f"written to {view}\n"
    assert view.read_bytes().startswith(start)


def test_a_text_is_inspected_in_the_form_of_the_bridges_task(palam, bridge, tmp_path):
    path = bridge / "config.json"
    config = json.loads(path.read_text())
    config["task"]["text"] = "Review: {review}"
    path.write_text(json.dumps(config))
    view = tmp_path / "view.json"
    assert palam("inspect", bridge, "--text", "I am home.", "--out", view, *CPU).code == 0
    shown = json.loads(view.read_text())
    tokens, weights, _ = layer_weights(PalamModel.from_pretrained(bridge), "Review: I am home.")
    assert shown["text"] == "Review: I am home."
    assert shown["tokens"] == tokens
    assert shown["weights"] == weights.tolist()


def test_info_of_the_installation(palam):
    result = palam("info")
    assert result.code == 0
    for word in ("palam", "transformers", "transformer_softmax", "sinhala_news", "cpu"):
        assert word in result.out


def test_info_names_the_options_of_fusions_and_mappers_with_their_defaults(palam):
    lines = [line.strip() for line in palam("info").out.splitlines()]
    assert "global_softmax, paper_temperature False" in lines
    assert any(line.startswith("transformer_softmax, rank None") for line in lines)
    assert any(line.startswith("mlp, hidden_size ") for line in lines)


def test_info_of_a_bridge(palam, trained):
    result = palam("info", trained)
    assert result.code == 0
    for line in (
        "encoder     bert: 3 layers, 32 wide",
        "fusion      mean, normalize layer",
        "task        sib200 (topic)",
    ):
        assert line in result.out


def test_names_in_a_bridge_are_obeyed_by_no_terminal(palam, bridge):
    path = bridge / "config.json"
    config = json.loads(path.read_text())
    config["task"]["labels"][0] = ["x", "\x1b[2J \u202e words"]
    config["encoder"] += "\x1b]0;title\x07"
    path.write_text(json.dumps(config))
    result = palam("info", bridge)
    assert result.code == 0
    assert "\\x1b[2J \\u202e words" in result.out
    assert "\x1b" not in result.out
