"""Base models in 8 and 4 bits: smaller, nearly the same, and gradients reach the bridge."""

import sys

import pytest
import torch

from palam import PalamError, PalamModel

bnb = pytest.importorskip("bitsandbytes")
TEXTS = ["I am going home.", "මම ගෙදර යනවා.", "The rice price went up again."]
ANSWERS = ["travel", "health", "a"]
# Of the logits' standard deviation; 8 bits round the activations too.
TOLERANCE = {"8bit": 0.08, "4bit": 1e-4}


def logits_and_gradient(model):
    output = model(**model.processor(TEXTS, ANSWERS))
    output.loss.backward()
    return output.logits.detach(), model.bridge.mapper.readout.weight.grad.flatten()


def same_values(whole, small):
    """Give the whole model the values that the small one's matrices stand for."""
    for name, layer in small.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, bnb.nn.Params4bit):
            value = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
        elif isinstance(weight, bnb.nn.Int8Params):
            value = weight.data.float() * layer.state.SCB[:, None] / 127  # it has run already
        else:
            continue
        whole_weight = whole.get_submodule(name).weight
        assert (value - whole_weight).abs().max() < 0.2 * whole_weight.abs().max()
        whole_weight.data = value.to(whole_weight.dtype)


@pytest.mark.parametrize("load_in", ["8bit", "4bit"])
@pytest.mark.parametrize(
    ("encoder", "llm"), [("bert", "llama"), ("nllb", "gemma3"), ("t5", "qwen")]
)
def test_a_saved_bridge_reads_with_smaller_bases(tiny_model, tmp_path, load_in, encoder, llm):
    if load_in == "4bit" and getattr(bnb.functional, "has_avx512bf16", bool)():
        pytest.skip(
            "bitsandbytes' kernels for this CPU need rows of 64 weights or more; these have 32"
        )
    whole = tiny_model(encoder, llm, fusion="mean", normalize="layer")
    whole.save_pretrained(tmp_path / "bridge")
    # Its fingerprints fit.
    small = PalamModel.from_pretrained(tmp_path / "bridge", load_in=load_in, device="cpu")
    for small_base, base in ((small.encoder, whole.encoder), (small.llm, whole.llm)):
        assert small_base.get_memory_footprint() < base.get_memory_footprint()
        embeddings = base.get_input_embeddings().weight
        assert torch.equal(small_base.get_input_embeddings().weight, embeddings)
        same_values(base, small_base)
    expected, gradient = logits_and_gradient(whole)
    logits, small_gradient = logits_and_gradient(small)
    assert (logits - expected).std() < TOLERANCE[load_in] * expected.std()
    assert torch.cosine_similarity(small_gradient, gradient, 0) > 0.98
    assert not any(
        p.requires_grad for part in (small.encoder, small.llm) for p in part.parameters()
    )


def test_what_cannot_be_loaded_so_is_refused(base_folder, monkeypatch):
    bases = str(base_folder("bert")), str(base_folder("llama"))
    with pytest.raises(PalamError, match="load_in is '3bit'; it must be one of: 8bit, 4bit"):
        PalamModel.from_bases(*bases, load_in="3bit")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PalamError, match=r"8bit needs bitsandbytes: pip install .palam\[quant\]"):
        PalamModel.from_bases(*bases, load_in="8bit")
