"""A plan is compared with the same step done for real."""

import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSeq2SeqLM, LlamaConfig

from palam import PalamError, PalamModel
from palam.bench.baseline_plan import (
    BEAMS,
    plan_encoder_reading,
    plan_llm_reading,
    plan_translation,
)
from palam.bench.device_memory import GIB, Device
from palam.bench.plan import plan
from palam.models.backbones.encoder import encode, load_encoder
from palam.models.backbones.llm import load_llm
from palam.starter.marker import MARKER
from palam.training.config import TrainConfig
from palam.training.distillation import MAX_ANSWER_TOKENS
from palam.utils.device import resolve_placement

LENGTHS = {"text_tokens": 12, "prompt_tokens": 3, "answer_tokens": 2}


@pytest.fixture(autouse=True)
def plain_attention(monkeypatch):
    """What is faster is measured, which a busy machine may upset."""
    monkeypatch.setattr("palam.utils.device.pick_attention", lambda device, dtype: "eager")


def settings(base_folder, encoder="xlmr", llm="llama", **options):
    """A configuration on tiny base models; one that is not a family is taken as a folder."""
    return TrainConfig.from_settings(
        {
            "encoder": str(base_folder(encoder)),
            "llm": str(base_folder(llm)),
            "task": "demo",
            "device": "cpu",
            "dtype": "fp32",
            "batch_size": 4,
            **options,
        }
    )


def plan_of(config, **options):
    return plan(config.model, config.optim, config.runtime, **options)


def operations_of_step(model, texts, ids):
    """What a real forward and backward pass take."""
    with FlopCounterMode(display=False) as count:
        output = model(
            encoder_input_ids=texts,
            encoder_attention_mask=torch.ones_like(texts),
            input_ids=ids,
            labels=ids.clamp(min=0),
            logits_to_keep=3,
        )
        output.loss.backward()
    return count.get_total_flops()


@pytest.mark.parametrize(
    ("encoder", "llm"), [("xlmr", "llama"), ("t5", "gemma3"), ("m2m100", "gpt2"), ("bert", "qwen")]
)
@pytest.mark.parametrize("fusion", ["last", "transformer_softmax"])
def test_the_arithmetic_and_the_weights_are_those_of_a_real_step(base_folder, encoder, llm, fusion):
    config = settings(base_folder, encoder, llm, fusion=fusion, epochs=2)
    planned = plan_of(config, rows=10, hardware=Device(rate=1e9), **LENGTHS)
    model = PalamModel.from_bases(
        config.model.encoder,
        config.model.llm,
        fusion=fusion,
        normalize="layer",
        mode="paper",
        max_length=64,
        attention="eager",
    )
    texts = torch.full((4, 12), 7)
    slot = torch.full((4, 1), -1)
    ids = torch.cat([slot, torch.full((4, 3 + 2), 7)], 1)
    operations = operations_of_step(model, texts, ids)
    assert sum(planned.operations.values()) == operations
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(
            encoder_input_ids=texts,
            encoder_attention_mask=torch.ones_like(texts),
            input_ids=ids,
            logits_to_keep=3,
        )
    assert planned.reading_seconds(1) == pytest.approx(forward.get_total_flops() / 4 / 1e9)
    assert 1 < planned.reading_seconds(7) / planned.reading_seconds(1) < 7
    assert planned.tokens == 4 * (12 + 12 + 1 + 5)
    assert planned.length == (6, 6)
    trained = sum(parameter.numel() for parameter in model.bridge.parameters())
    assert planned.trained_parameters == trained
    for part, real in (("encoder", model.encoder), ("LLM", model.llm)):
        assert planned.memory[part] == sum(p.numel() * p.element_size() for p in real.parameters())
    assert planned.batch_seconds == pytest.approx(operations / 1e9)


def test_an_llm_that_reads_the_text_too_reads_more(base_folder):
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    plain = plan_of(settings(base_folder, fusion="mean"), **options)
    augmented = settings(base_folder, fusion="mean", mode="prompt", append_source_tokens=True)
    planned = plan_of(augmented, **options)
    assert planned.tokens == plain.tokens + 4 * 12
    assert planned.operations["encoder"] == plain.operations["encoder"]
    model = PalamModel.from_bases(
        augmented.model.encoder, augmented.model.llm, fusion="mean", mode="paper", attention="eager"
    )
    texts = torch.full((4, 12), 7)
    ids = torch.cat([torch.full((4, 1), -1), torch.full((4, 3 + 12 + 2), 7)], 1)
    operations = operations_of_step(model, texts, ids)
    assert sum(planned.operations.values()) == operations


def test_a_lora_on_an_llm_that_reads_alone(base_folder):
    pytest.importorskip("peft")
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    config = settings(base_folder, mode="prompt", llm_only=True, lora_rank=2)
    planned = plan_of(config, **options)
    model = PalamModel.from_bases(
        config.model.encoder, config.model.llm, fusion="mean", mode="paper", attention="eager"
    )
    model.add_lora(2)
    lora = [weight for weight in model.llm.parameters() if weight.requires_grad]
    assert planned.trained_parameters == sum(weight.numel() for weight in lora)
    assert planned.tokens == 4 * (3 + 12 + 2)
    assert planned.operations["encoder"] == 0
    ids = torch.full((4, 3 + 12 + 2), 7)
    with FlopCounterMode(display=False) as count:
        model.llm(ids, use_cache=False, logits_to_keep=3).logits.sum().backward()
    assert planned.operations["LLM and bridge"] == pytest.approx(count.get_total_flops(), rel=0.01)


def test_a_lora_beside_a_bridge_is_trained_too(base_folder):
    pytest.importorskip("peft")
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    plain = plan_of(settings(base_folder, fusion="mean"), **options)
    both = plan_of(settings(base_folder, fusion="mean", lora_rank=2), **options)
    assert both.trained_parameters > plain.trained_parameters
    assert both.memory["LLM"] == plain.memory["LLM"]
    assert both.operations["LLM and bridge"] > plain.operations["LLM and bridge"]


def operations_of(action):
    with FlopCounterMode(display=False) as count, torch.no_grad():
        action()
    return count.get_total_flops()


def raw_text(base_folder, tmp_path, llm, **options):
    file = str(tmp_path / "text.txt")
    return settings(base_folder, llm=llm, task=None, text_file=file, **options)


@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
def test_what_is_distilled_is_read_by_the_teacher_too(base_folder, tmp_path, llm):
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    plain = plan_of(raw_text(base_folder, tmp_path, llm), **options)
    config = raw_text(base_folder, tmp_path, llm, distill=True)
    planned = plan_of(config, **options)
    teacher = load_llm(config.model.llm, attention="eager")
    ids = torch.full((4, 3 + 12 + 2), 7)
    expected = operations_of(lambda: teacher(ids, use_cache=False, logits_to_keep=3))
    assert planned.operations == {**plain.operations, "teacher": expected}
    assert planned.tokens == plain.tokens + ids.numel()
    assert planned.batch_seconds > plain.batch_seconds


@pytest.mark.parametrize("llm", ["llama", "gemma3", "gpt2"])
def test_answers_to_prompts_are_generated_before_training(base_folder, tmp_path, llm):
    prompts = str(tmp_path / "prompts.txt")
    config = raw_text(base_folder, tmp_path, llm, distill=True, prompts_file=prompts)
    planned = plan_of(config, rows=10, hardware=Device(rate=1e9), **LENGTHS)
    model = load_llm(config.model.llm, attention="eager")
    length = {"max_new_tokens": MAX_ANSWER_TOKENS, "min_new_tokens": MAX_ANSWER_TOKENS}
    ids = torch.full((1, 3 + 12), 7)
    expected = operations_of(lambda: model.generate(ids, do_sample=False, **length))
    assert planned.answering_operations == pytest.approx(expected, rel=0.01)
    assert planned.answering_seconds == pytest.approx(10 * planned.answering_operations / 1e9)
    assert planned.lines()["answers to prompts"] == "10: 1 min to 1 min"


@pytest.mark.parametrize("encoder", ["xlmr", "t5", "bert"])
def test_a_head_reads_with_the_encoder_alone(base_folder, encoder):
    model = settings(base_folder, encoder).model
    planned = plan_encoder_reading(model, resolve_placement("cpu", "fp32"), text_tokens=12)
    loaded = load_encoder(model.encoder, attention="eager")
    ids = torch.full((1, 12), 7)
    expected = operations_of(lambda: encode(loaded, ids, torch.ones_like(ids)))
    assert planned.operations == expected
    assert planned.memory_bytes == sum(weight.nbytes for weight in loaded.parameters())


def test_the_llm_alone_reads_a_text_with_all_labels_behind_it(base_folder):
    model = settings(base_folder).model
    placement = resolve_placement("cpu", "fp32")
    one = plan_llm_reading(model, placement, 1, **LENGTHS)
    llm = load_llm(model.llm, attention="eager")
    ids = torch.full((1, 3 + 12 + 2), 7)
    assert one.operations == operations_of(
        lambda: llm(ids, use_cache=False, logits_to_keep=LENGTHS["answer_tokens"] + 1)
    )
    seven = plan_llm_reading(model, placement, 7, **LENGTHS)
    assert seven.tokens == 3 + 12 + 7 * 2
    assert 1 < seven.operations / one.operations < 7


@pytest.mark.parametrize("translator", ["nllb", "mt5"])
def test_a_translation_is_written_by_every_beam(base_folder, translator):
    folder = str(base_folder(translator))
    planned = plan_translation(folder, resolve_placement("cpu", "fp32"), text_tokens=12)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    ids = torch.full((1, 12), 7)
    length = {"max_new_tokens": 12, "min_new_tokens": 12}
    expected = operations_of(lambda: model.generate(ids, num_beams=BEAMS, **length))
    assert planned.operations == pytest.approx(expected, rel=0.02)


def test_the_activations_are_what_a_real_step_keeps(base_folder):
    config = settings(base_folder, fusion="mean")
    planned = plan_of(config, rows=10, hardware=Device(rate=1e9), **LENGTHS)
    model = PalamModel.from_bases(
        config.model.encoder,
        config.model.llm,
        fusion="mean",
        normalize="layer",
        mode="paper",
        attention="eager",
    )
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    sizes = {}
    alive = []

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    texts = torch.full((4, 12), 7)
    ids = torch.cat([torch.full((4, 1), -1), torch.full((4, 5), 7)], 1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(
            encoder_input_ids=texts,
            encoder_attention_mask=torch.ones_like(texts),
            input_ids=ids,
            logits_to_keep=3,
        )
    assert planned.memory["activations"] == pytest.approx(sum(sizes.values()), rel=0.1)


def test_less_is_kept_when_layers_are_recomputed_and_more_is_computed(base_folder):
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    plain = plan_of(settings(base_folder, fusion="mean"), **options)
    recomputing = settings(base_folder, fusion="mean", gradient_checkpointing=True)
    again = plan_of(recomputing, **options)
    assert again.memory["activations"] < 0.5 * plain.memory["activations"]
    assert again.operations["LLM and bridge"] > 1.2 * plain.operations["LLM and bridge"]


def test_a_fusions_own_options_count(base_folder):
    options = {"rows": 10, "hardware": Device(rate=1e9), **LENGTHS}
    whole = settings(base_folder, fusion="transformer_softmax")
    low_rank = settings(base_folder, fusion="transformer_softmax", fusion_options={"rank": 2})
    fewer = plan_of(low_rank, **options).trained_parameters
    assert fewer < plan_of(whole, **options).trained_parameters


def test_the_rate_is_measured_unless_it_is_given(base_folder):
    assert plan_of(settings(base_folder), rows=10, **LENGTHS).rate > 0
    lines = plan_of(
        settings(base_folder), rows=10_000, hardware=Device(rate=2e12), **LENGTHS
    ).lines()
    assert lines["matrix rate"] == "2.00 · 10¹² operations a second"
    assert lines["all steps"].startswith("7,500: ")


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_a_model_that_is_not_there_is_one_line(base_folder, part, tmp_path):
    config = settings(base_folder).with_settings(**{part: str(tmp_path / "nothing")})
    with pytest.raises(PalamError, match="no such folder"):
        plan_of(config, rows=10, hardware=Device(rate=1e9))


def test_starter_models_that_are_not_there_yet_are_made_with_real_tensors(
    base_folder, monkeypatch, tmp_path
):
    def make(name, source, target):
        save_file({"weight": torch.ones(2)}, tmp_path / "weights")  # as a conversion does
        shutil.copytree(base_folder("xlmr" if name == "starter:encoder" else "llama"), target)
        (target / MARKER).write_text('{"format": 1, "files": {}}')

    monkeypatch.setattr("palam.starter.resolve.build", make)
    monkeypatch.setenv("PALAM_CACHE", str(tmp_path / "cache"))
    config = TrainConfig.from_settings({"task": "demo", "device": "cpu", "dtype": "fp32"})
    assert plan_of(config, rows=10, hardware=Device(rate=1e9), **LENGTHS).trained_parameters > 0


@pytest.fixture
def large_llm(tmp_path):
    """The configuration alone of an LLM of 8 billion weights; in few layers, which take time."""
    config = LlamaConfig(
        hidden_size=8192,
        num_hidden_layers=8,
        intermediate_size=28672,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=64000,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(tmp_path / "8b")
    return str(tmp_path / "8b")


def test_an_llm_fits_in_fewer_bits_or_spread_over_several_devices(base_folder, large_llm):
    config = settings(base_folder, dtype="bf16", batch_size=16).with_settings(llm=large_llm)
    whole = plan_of(config, rows=10, hardware=Device(memory=12 * GIB, rate=1e12), **LENGTHS)
    layer_weights = 8192 * (2 * 8192 + 2 * 1024 + 3 * 28672)
    ends = 2 * 64000 * 8192 + 8192  # embeddings, head and the last norm
    norms = 8 * 2 * 8192
    assert whole.memory["LLM"] == 2 * (8 * layer_weights + norms + ends)
    fit = whole.lines()["device"]
    assert fit.startswith("does not fit 12 GiB; it would with --load-in 8bit")
    assert "--load-in 4bit" in fit
    assert "--shard-llm" not in fit

    device = Device(memory=12 * GIB, rate=1e12, processes=8)
    planned = plan_of(config, rows=10, hardware=device, **LENGTHS)
    assert "--shard-llm" in planned.lines()["device"]
    sharded = config.with_settings(shard_llm=True)
    spread = plan_of(sharded, rows=10, hardware=device, **LENGTHS)
    one_layer = 2 * (layer_weights + 2 * 8192)
    assert spread.memory["LLM"] == 2 * ends + one_layer + one_layer  # an eighth, and one at work
    assert spread.lines()["device"] == "fits 12 GiB"
    assert spread.tokens * 8 == whole.tokens
    assert spread.length == whole.length

    in_4_bits = config.with_settings(load_in="4bit")
    quantised = plan_of(in_4_bits, rows=10, hardware=device, **LENGTHS)
    assert quantised.memory["LLM"] == 2 * (norms + ends) + 8 * layer_weights * 9 // 16


def test_a_batch_that_the_processes_cannot_share_is_refused(base_folder):
    config = settings(base_folder, batch_size=5)
    with pytest.raises(PalamError, match=r"it must be a multiple of 2, e\.g\. 6"):
        plan_of(config, rows=10, hardware=Device(processes=2, rate=1e9))
