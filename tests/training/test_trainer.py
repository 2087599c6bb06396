"""Steps and optimiser: what is averaged, what moves and how fast, what stops a run."""

import hashlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from helpers import read_jsonl
from transformers import TrainerCallback

from palam.errors import PalamError
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.bases import Bases
from palam.training.build import build_dataset, build_model
from palam.training.data import read_training_data
from palam.training.run import train
from palam.training.sampler import LengthGroupedSampler
from palam.training.trainer import NonFiniteLoss, embedding_units, newest_checkpoint


class At(TrainerCallback):
    """Calls a function at one event of the run, if a step is given only before that step."""

    def __init__(self, event, action, step=None):
        self.event, self.action, self.step = event, action, step

    def __getattribute__(self, name):
        if name.startswith("on_") and name != object.__getattribute__(self, "event"):
            return lambda *args, **kwargs: None
        return object.__getattribute__(self, "act" if name.startswith("on_") else name)

    def act(self, args, state, control, **kwargs):
        if self.step in (None, state.global_step + 1):
            self.action(SimpleNamespace(**kwargs))


def entries(folder):
    return read_jsonl(folder / "log.jsonl")


def parameters(model):
    return {name: value.detach().clone() for name, value in model.bridge.named_parameters()}


@pytest.mark.parametrize("objective", ["answers", "text"])
def test_one_row_eight_times_equals_eight_rows(settings, bases, tmp_path, objective):
    """21 rows are steps of 8, 8 and 5."""
    weights = {}
    logs = {}
    for batch_size in (8, 1):
        config = settings(
            objective,
            fusion="global_softmax",
            batch_size=batch_size,
            gradient_accumulation_steps=8 // batch_size,
            epochs=1,
            max_train_samples=21,
        )
        out = tmp_path / str(batch_size)
        weights[batch_size] = parameters(train(config, out, bases=bases))
        steps = [entry for entry in entries(out) if "loss" in entry]
        logs[batch_size] = torch.tensor([(step["loss"], step["grad_norm"]) for step in steps])
    assert logs[8].shape == (3, 2)
    assert torch.allclose(logs[8], logs[1], rtol=1e-4)
    for name, value in weights[8].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-3, atol=1e-5), name


def test_the_loss_is_the_token_mean_over_the_accumulated_batch(settings, bases, tmp_path):
    config = settings(
        init="random",
        batch_size=1,
        gradient_accumulation_steps=8,
        max_train_samples=8,
        max_steps=1,
    )
    train(config, tmp_path / "out", bases=bases)
    data = read_training_data(config.data, seed=0)
    model = build_model(config.model, data, config.runtime, bases)
    total = 0.0
    counts = []
    for example in data.train:
        batch = model.processor([data.task.render(example)], [data.task.labels[example.label]])
        length = int((batch["labels"] != -100).sum())
        logits = model(**batch).logits[0, -length - 1 : -1]
        total += -logits.log_softmax(-1).gather(1, batch["labels"][0, -length:, None]).sum().item()
        counts.append(length)
    assert len(set(counts)) > 1, "all answers have one length"
    assert entries(tmp_path / "out")[0]["loss"] == pytest.approx(total / sum(counts), rel=1e-5)


@pytest.mark.parametrize("rate", [0.25, 0.0, None])
def test_the_fusions_weights_have_their_own_rate(settings, bases, tmp_path, rate):
    """Adam's first step moves a weight by its learning rate."""
    config = settings(
        fusion="transformer_softmax",
        fusion_options={"rank": 4},
        lr=1e-3,
        fusion_lr=rate,
        warmup=0.0,
        max_steps=1,
    )
    start = {}
    begin = At("on_train_begin", lambda run: start.update(parameters(run.model)))
    model = train(config, tmp_path / "out", bases=bases, callbacks=[begin])
    fusion_rate = 1e-4 if rate is None else rate  # without a rate it is the fusion's own, 1e-4
    output_rate = 1e-3 * embedding_units(model.config.embedding_rms)
    for name, value in parameters(model).items():
        step = (value - start[name]).abs().max().item()
        if "in_proj_bias" in name:
            assert step <= 1.01 * fusion_rate
        elif name.startswith("fusion"):
            assert step == pytest.approx(fusion_rate, rel=0.01), name
        else:
            assert step == pytest.approx(output_rate, rel=0.01), name


def test_the_learning_rate_is_in_units_of_the_llms_embeddings(settings, bases, tmp_path):
    """The readout and the boundary alone; the starter LLM's factor is exactly 1."""
    assert embedding_units(0.13595983386039734) == 1.0
    assert embedding_units(2 * 0.13595983386039734) == 2.0
    assert embedding_units(1.03) == 7.58
    rates = {}

    def look(run):
        names = {id(value): name for name, value in run.model.named_parameters()}
        for group in run.optimizer.param_groups:
            for value in group["params"]:
                rates[names[id(value)]] = group["initial_lr"]

    config = settings(
        fusion="global_softmax", mapper="mlp", lora_rank=2, lr=1e-3, fusion_lr=0.5, max_steps=1
    )
    lora = Bases(load_encoder(config.model.encoder), load_llm(config.model.llm))  # peft changes it
    begin = At("on_train_begin", look)
    model = train(config, tmp_path / "out", bases=lora, callbacks=[begin])
    scaled = 1e-3 * embedding_units(model.config.embedding_rms)
    assert scaled != 1e-3
    assert rates.pop("bridge.boundary") == scaled
    assert rates.pop("bridge.mapper.readout.weight") == scaled
    assert rates.pop("bridge.mapper.readout.bias") == scaled
    assert rates.pop("bridge.mapper.hidden.weight") == 1e-3
    assert rates.pop("bridge.mapper.hidden.bias") == 1e-3
    fusion = {name for name in rates if name.startswith("bridge.fusion.")}
    assert fusion
    assert all(rates.pop(name) == 0.5 for name in fusion)
    assert rates
    assert all("lora" in name and rate == 1e-3 for name, rate in rates.items())


def test_matrices_decay_and_vectors_do_not(settings, bases, tmp_path):
    decays = {}

    def look(run):
        names = {id(value): name for name, value in run.model.named_parameters()}
        for group in run.optimizer.param_groups:
            for value in group["params"]:
                decays[names[id(value)]] = group["weight_decay"]

    config = settings(fusion="transformer_softmax", weight_decay=0.5, max_steps=1)
    model = train(config, tmp_path / "out", bases=bases, callbacks=[At("on_train_begin", look)])
    assert set(decays) == {f"bridge.{name}" for name in parameters(model)}
    for name, value in parameters(model).items():
        assert decays[f"bridge.{name}"] == (0.5 if value.ndim > 1 else 0.0)


def test_the_bases_stay_as_they_are(settings, bases, tmp_path):
    def digest():
        tensors = [value for base in bases for value in base.state_dict().values()]
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors)).hexdigest()

    before = digest()
    model = train(settings(lr=0.1), tmp_path / "out", bases=bases)
    assert digest() == before
    assert not any(value.requires_grad for base in bases for value in base.parameters())
    assert not model.training


def test_recomputed_activations_change_nothing(settings, tmp_path):
    weights = {}
    for recompute in (False, True):  # with bases of its own: recomputing is switched on in the LLM
        config = settings(gradient_checkpointing=recompute, max_steps=3)
        weights[recompute] = parameters(train(config, tmp_path / str(recompute)))
    for name, value in weights[False].items():
        assert torch.allclose(value, weights[True][name], rtol=1e-4, atol=1e-6), name


def poison_loss(run):
    with torch.no_grad():
        run.model.bridge.boundary.fill_(float("nan"))


def poison_gradient(run):
    run.model.bridge.boundary.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(settings, bases, tmp_path, poison):
    """Six steps an epoch; the second one of the second epoch goes wrong."""
    out, work = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(NonFiniteLoss) as caught:
        train(settings(), out, bases=bases, callbacks=[At("on_step_begin", poison, 8)])
    sampler = LengthGroupedSampler(train_set_of(settings(), bases), 4, 0)
    sampler.set_epoch(1)
    rows = list(sampler)[4:8]
    assert "at step 8, training rows" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert json.loads(re.search(r"\[[\d, ]+\]", str(caught.value))[0]) == rows
    assert newest_checkpoint(work).name == "checkpoint-6"
    assert not out.exists()
    train(settings(), out, bases=bases, resume=True)
    train(settings(), tmp_path / "whole", bases=bases)
    whole = (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == whole


def overflow(module):
    """Let a module return numbers above those that fp16 has."""
    module.register_forward_hook(lambda _, inputs, output: output * 1e9)


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_an_overflow_names_the_dtype_and_not_the_rows(settings, tmp_path, part):
    config = settings(dtype="fp16", fusion="mean", init="random", cache_states=0.0)
    half = Bases(
        load_encoder(config.model.encoder, dtype=torch.float16),
        load_llm(config.model.llm, dtype=torch.float16),
    )

    def poison(run):
        encoder_output = half.encoder.encoder.layer[-1].output
        overflow(encoder_output if part == "encoder" else half.llm.lm_head)

    begin = At("on_step_begin", poison, 2)
    with pytest.raises(PalamError) as caught:
        train(config, tmp_path / "out", bases=half, callbacks=[begin])
    what = {"encoder": "the encoder's states (layer 3)", "llm": "the LLM's logits"}[part]
    assert f"{what} are not finite in fp16: use --dtype bf16 or fp32" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "rows" not in str(caught.value)


def train_set_of(config, bases):
    data = read_training_data(config.data, seed=0)
    processor = build_model(config.model, data, config.runtime, bases).processor
    return build_dataset(config, data, data.train, processor)


def test_a_validation_loss_that_is_not_finite_is_no_checkpoint(settings, bases, tmp_path):
    poison = At("on_epoch_end", poison_loss, 13)
    with pytest.raises(NonFiniteLoss, match="validation loss is not finite after step 12"):
        train(settings(), tmp_path / "out", bases=bases, callbacks=[poison])
    assert newest_checkpoint(tmp_path / "out.partial").name == "checkpoint-6"


def test_a_rate_far_too_high_leaves_nothing(settings, bases, tmp_path):
    with pytest.raises(PalamError, match="lower the learning rate"):
        train(settings(lr=3e38, warmup=0.0), tmp_path / "new" / "out", bases=bases)
    assert not list(tmp_path.iterdir())
