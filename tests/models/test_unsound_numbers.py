"""Numbers that are not finite are refused where they enter, with the part that they come from."""

import math

import pytest
import torch
from helpers import PROMPT, prompts, refusal
from safetensors.torch import load_file, save_file

from palam import PalamModel
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import check_llm, load_llm
from palam.models.checkpoint import load_bridge


def edit_weights(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bridge_with_weights_that_are_not_finite_is_refused(tiny_model, tmp_path, value):
    tiny_model(fusion="mean").save_pretrained(tmp_path)
    edit_weights(tmp_path / "model.safetensors", lambda w: w["boundary"].fill_(value))
    line = refusal(load_bridge, tmp_path)
    assert "the bridge's weights in model.safetensors (boundary) are not finite" in line
    assert str(tmp_path) in line


def test_such_a_bridge_is_not_saved(tiny_model, tmp_path):
    model = tiny_model(fusion="mean")
    with torch.no_grad():
        model.bridge.mapper.readout.bias[3] = math.nan
    line = refusal(model.save_pretrained, tmp_path / "out")
    assert "the bridge's weights, which were to be saved, (mapper.readout.bias) are" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prior", ["NaN", "Infinity", '"x"', "null", "[1]"])
def test_priors_that_are_no_finite_numbers_are_refused(tiny_model, tmp_path, prior):
    model = tiny_model(fusion="mean")
    model.config.label_priors = {"sports": 0.125}
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace("0.125", prior))
    line = refusal(PalamModel.from_pretrained, tmp_path)
    assert "label_priors of 'sports' is" in line
    assert "not a finite number" in line


def test_an_adapter_with_weights_that_are_not_finite_is_refused(tiny_model, tmp_path):
    pytest.importorskip("peft")
    model = tiny_model(fusion="mean")
    model.add_lora(rank=2)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    name = min(load_file(file))
    edit_weights(file, lambda weights: weights[name].fill_(math.nan))
    line = refusal(PalamModel.from_pretrained, tmp_path)
    assert f"the weights in adapter_model.safetensors ({name}) are not finite" in line


def overflowing(model):
    """A model whose first layer writes what fp16 cannot hold (over 65,504)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("output.dense.weight", "down_proj.weight")):
                parameter.fill_(30_000.0)
    return model


def test_states_of_an_encoder_that_overflow_name_the_part_and_the_dtype(tiny_model, base_folder):
    encoder = load_encoder(str(base_folder("bert")), dtype=torch.float16)
    model = tiny_model(mode="prompt", prompt=PROMPT)
    model.live_encoding.encoder = encoder
    overflowing(encoder)
    line = refusal(model, **prompts(model))
    assert "the encoder's states (layer 1) are not finite in fp16: use --dtype bf16 or fp32" in line


def test_an_llm_that_overflows_is_not_said_to_need_ids(base_folder):
    llm = overflowing(load_llm(str(base_folder("llama")), dtype=torch.float16))
    line = refusal(check_llm, llm)
    assert "logits are not finite in fp16: use --dtype bf16 or fp32" in line
    assert "token ids" not in line
