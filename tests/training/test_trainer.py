"""Steps and optimiser: what is averaged, what moves and how fast, what stops a run."""

import hashlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from palam.errors import PalamError
from palam.training.build import build_model
from palam.training.data import read_training_data
from palam.training.run import train
from palam.training.sampler import LengthGroupedSampler
from palam.training.trainer import NonFiniteLoss, newest_checkpoint


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
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def parameters(model):
    return {name: value.detach().clone() for name, value in model.bridge.named_parameters()}


@pytest.mark.parametrize("objective", ["answers", "text"])
def test_one_row_eight_times_equals_eight_rows(settings, bases, tmp_path, objective):
    """21 rows are steps of 8, 8 and 5."""
    found = []
    for batch_size in (8, 1):
        chosen = settings(
            objective,
            fusion="global_softmax",
            batch_size=batch_size,
            accumulate=8 // batch_size,
            epochs=1,
            limit=21,
        )
        model = train(chosen, tmp_path / str(batch_size), bases=bases)
        logs = [
            (e["loss"], e["grad_norm"]) for e in entries(tmp_path / str(batch_size)) if "loss" in e
        ]
        found.append((parameters(model), torch.tensor(logs)))
    (weights, logs), (others, other_logs) = found
    assert logs.shape == (3, 2)
    assert torch.allclose(logs, other_logs, rtol=1e-4)
    for name, value in weights.items():
        assert torch.allclose(value, others[name], rtol=1e-3, atol=1e-5), name


def test_the_loss_is_the_token_mean_over_the_accumulated_batch(settings, bases, tmp_path):
    chosen = settings(init="random", batch_size=1, accumulate=8, limit=8, max_steps=1)
    train(chosen, tmp_path / "out", bases=bases)
    data = read_training_data(chosen)
    model = build_model(chosen, data, bases)
    total, counts = 0.0, []
    for example in data.train:
        batch = model.processor([data.task.render(example)], [data.task.labels[example.label]])
        length = int((batch["labels"] != -100).sum())
        logits = model(**batch).logits[0, -length - 1 : -1]
        total += -logits.log_softmax(-1).gather(1, batch["labels"][0, -length:, None]).sum().item()
        counts.append(length)
    assert len(set(counts)) > 1, "all answers have one length"
    assert entries(tmp_path / "out")[0]["loss"] == pytest.approx(total / sum(counts), rel=1e-5)


def test_mixing_weights_have_their_own_rate(settings, bases, tmp_path):
    """Adam's first step moves a weight by its learning rate."""
    for rate in (0.25, 0.0, None):
        chosen = settings(
            fusion="transformer_softmax", lr=1e-3, fusion_lr=rate, warmup=0.0, max_steps=1, rank=4
        )
        start = []
        begin = At("on_train_begin", lambda run, start=start: start.append(parameters(run.model)))
        moved = parameters(train(chosen, tmp_path / str(rate), bases=bases, callbacks=[begin]))
        for name, value in moved.items():
            step = (value - start[0][name]).abs().max().item()
            if name.startswith("fusion"):  # without a rate it is the fusion's own, 1e-4
                expected = 1e-4 if rate is None else rate
                if "in_proj_bias" not in name:
                    assert step == pytest.approx(expected, rel=0.01), name
                else:
                    assert step <= 1.01 * expected
            else:
                assert step == pytest.approx(1e-3, rel=0.01), name


def test_matrices_decay_and_vectors_do_not(settings, bases, tmp_path):
    decays = {}

    def look(run):
        names = {id(value): name for name, value in run.model.named_parameters()}
        for group in run.optimizer.param_groups:
            decays.update({names[id(value)]: group["weight_decay"] for value in group["params"]})

    chosen = settings(fusion="transformer_softmax", weight_decay=0.5, max_steps=1)
    model = train(chosen, tmp_path / "out", bases=bases, callbacks=[At("on_train_begin", look)])
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


def test_recomputed_activations_change_nothing(settings, base_folder, tmp_path):
    found = []
    for recompute in (False, True):  # with bases of its own: recomputing is switched on in the LLM
        chosen = settings(gradient_checkpointing=recompute, max_steps=3)
        found.append(parameters(train(chosen, tmp_path / str(recompute))))
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-4, atol=1e-6), name


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
    sampler = LengthGroupedSampler(SimpleNamespace(lengths=lengths(settings(), bases)), 4, 0)
    sampler.set_epoch(1)
    rows = list(sampler)[4:8]
    assert "at step 8, training rows" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert json.loads(re.search(r"\[[\d, ]+\]", str(caught.value))[0]) == rows
    assert newest_checkpoint(work).name == "checkpoint-6"
    assert not out.exists()
    train(settings(), out, bases=bases, resume=True)
    train(settings(), tmp_path / "whole", bases=bases)
    assert (out / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def lengths(settings, bases):
    from palam.training.data import AnswerDataset

    data = read_training_data(settings)
    processor = build_model(settings, data, bases).processor
    answers = [data.task.labels[example.label] for example in data.train]
    return AnswerDataset(processor, data.texts(data.train, settings.mode), answers).lengths


def test_a_validation_loss_that_is_not_finite_is_no_checkpoint(settings, bases, tmp_path):
    with pytest.raises(NonFiniteLoss, match="validation loss is not finite after step 12"):
        train(
            settings(),
            tmp_path / "out",
            bases=bases,
            callbacks=[At("on_epoch_end", poison_loss, 13)],
        )
    assert newest_checkpoint(tmp_path / "out.partial").name == "checkpoint-6"


def test_a_rate_far_too_high_leaves_nothing(settings, bases, tmp_path):
    with pytest.raises(PalamError, match="lower the learning rate"):
        train(settings(lr=3e38, warmup=0.0), tmp_path / "new" / "out", bases=bases)
    assert not list(tmp_path.iterdir())
