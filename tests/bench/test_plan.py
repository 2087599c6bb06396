"""A plan is compared with the same step done for real."""

import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from palam import PalamError, PalamModel, starter
from palam.bench.plan import plan
from palam.training.config import TrainConfig

LENGTHS = {"text_tokens": 12, "prompt_tokens": 3, "answer_tokens": 2}


@pytest.fixture(autouse=True)
def plain_attention(monkeypatch):
    """What is faster is measured, which a busy machine may upset."""
    monkeypatch.setattr("palam.utils.device.pick_attention", lambda device, dtype: "eager")


def settings(base_folder, encoder="xlmr", llm="llama", **options):
    bases = {"encoder": str(base_folder(encoder)), "llm": str(base_folder(llm))}
    return TrainConfig(**bases, task="demo", device="cpu", dtype="fp32", batch_size=4, **options)


@pytest.mark.parametrize(
    ("encoder", "llm"), [("xlmr", "llama"), ("t5", "gemma3"), ("m2m100", "gpt2"), ("bert", "qwen")]
)
@pytest.mark.parametrize("fusion", ["last", "transformer_softmax"])
def test_the_arithmetic_and_the_weights_are_those_of_a_real_step(base_folder, encoder, llm, fusion):
    given = settings(base_folder, encoder, llm, fusion=fusion, epochs=2)
    found = plan(given, rows=10, rate=1e9, **LENGTHS)
    model = PalamModel.from_bases(
        given.encoder, given.llm, fusion=fusion, normalize="layer", max_length=64, attention="eager"
    )
    texts = torch.full((4, 12), 7)
    ids = torch.full((4, 3 + 2), 7)
    ids = torch.cat([torch.full((4, 1), -1), ids], 1)  # the text's slot
    with FlopCounterMode(display=False) as count:
        model(
            texts, torch.ones_like(texts), ids, labels=ids.clamp(min=0), logits_to_keep=3
        ).loss.backward()
    assert sum(found.operations.values()) == count.get_total_flops()
    assert found.tokens == 4 * (12 + 12 + 1 + 5)
    assert found.steps == 6
    assert found.trained_parameters == sum(
        parameter.numel() for parameter in model.bridge.parameters()
    )
    for part, real in (("encoder", model.encoder), ("LLM", model.llm)):
        assert found.memory[part] == sum(p.numel() * p.element_size() for p in real.parameters())
    assert found.step_seconds == pytest.approx(count.get_total_flops() / 1e9)


def test_the_activations_are_what_a_real_step_keeps(base_folder):
    given = settings(base_folder, fusion="mean")
    found = plan(given, rows=10, rate=1e9, **LENGTHS)
    model = PalamModel.from_bases(
        given.encoder, given.llm, fusion="mean", normalize="layer", attention="eager"
    )
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    texts, ids = (
        torch.full((4, 12), 7),
        torch.cat([torch.full((4, 1), -1), torch.full((4, 5), 7)], 1),
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(texts, torch.ones_like(texts), ids, logits_to_keep=3)
    assert found.memory["activations"] == pytest.approx(
        sum(size for size, _ in kept.values()), rel=0.1
    )


def test_less_is_kept_when_layers_are_recomputed_and_more_is_computed(base_folder):
    plain, again = (
        plan(
            settings(base_folder, fusion="mean", gradient_checkpointing=on),
            rows=10,
            rate=1e9,
            **LENGTHS,
        )
        for on in (False, True)
    )
    assert again.memory["activations"] < 0.5 * plain.memory["activations"]
    assert again.operations["LLM and bridge"] > 1.2 * plain.operations["LLM and bridge"]


def test_the_rate_is_measured_unless_it_is_given(base_folder):
    assert plan(settings(base_folder), rows=10, **LENGTHS).rate > 0
    lines = plan(settings(base_folder), rows=10_000, rate=2e12, **LENGTHS).lines()
    assert lines["matrix rate"] == "2.00 · 10¹² operations a second"
    assert lines["all steps"].startswith("7,500: ")


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_a_model_that_is_not_there_is_one_line(base_folder, part, tmp_path):
    given = settings(base_folder)
    setattr(given, part, str(tmp_path / "nothing"))
    with pytest.raises(PalamError, match="no such folder"):
        plan(given, rows=10, rate=1e9)


def test_starter_models_that_are_not_there_yet_are_made_with_real_tensors(
    base_folder, monkeypatch, tmp_path
):
    def make(name, source, target):
        save_file({"weight": torch.ones(2)}, tmp_path / "weights")  # as a conversion does
        shutil.copytree(base_folder("xlmr" if name == "starter:encoder" else "llama"), target)
        (target / starter.MARKER).write_text('{"format": 1, "files": {}}')

    monkeypatch.setattr(starter, "_make", make)
    monkeypatch.setenv("PALAM_CACHE", str(tmp_path / "cache"))
    given = TrainConfig(task="demo", device="cpu", dtype="fp32")
    assert plan(given, rows=10, rate=1e9, **LENGTHS).trained_parameters > 0
