"""The mean of the weights over a run: what is evaluated and saved, and what is trained on."""

import copy

import pytest
import torch
from helpers import read_jsonl
from transformers import TrainerCallback

from palam import PalamModel
from palam.training.averaging import AveragedAdamW
from palam.training.run import train
from palam.training.trainer import embedding_units


def steps(optimizer, weight, seed, count):
    """The weight after each of some steps on random gradients."""
    torch.manual_seed(seed)
    seen = []
    for _ in range(count):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        seen.append(weight.detach().clone())
    return seen


@pytest.mark.parametrize("start", [0, 3, 8])
def test_the_weights_take_adamws_steps_and_the_mean_is_theirs(start):
    plain = torch.nn.Parameter(torch.arange(4.0))
    averaged = torch.nn.Parameter(torch.arange(4.0))
    expected = steps(torch.optim.AdamW([plain], lr=0.1), plain, 0, 6)
    optimizer = AveragedAdamW([averaged], lr=0.1, start=start)
    assert all(map(torch.equal, steps(optimizer, averaged, 0, 6), expected))
    optimizer.eval()
    optimizer.eval()  # twice is once
    mean = torch.stack(expected[min(start, 5) :]).mean(0)
    assert torch.allclose(averaged, mean, atol=1e-6)
    optimizer.train()
    optimizer.train()
    assert torch.equal(averaged, expected[-1])


@pytest.mark.parametrize("saved_in", ["eval", "train"])
def test_it_resumes_from_its_state(saved_in):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AveragedAdamW([weight], lr=0.1, start=1)
    steps(optimizer, weight, 0, 3)
    getattr(optimizer, saved_in)()
    other = torch.nn.Parameter(weight.detach().clone())
    resumed = AveragedAdamW([other], lr=0.1, start=1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.train()
    resumed.train()
    assert all(map(torch.equal, steps(optimizer, weight, 1, 3), steps(resumed, other, 1, 3)))
    optimizer.eval()
    resumed.eval()
    assert torch.equal(weight, other)


class WatchReadout(TrainerCallback):
    """The readout after each step of training."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append(model.bridge.mapper.readout.weight.detach().clone())


def test_a_run_saves_the_mean_and_trains_at_a_constant_rate(settings, bases, tmp_path):
    watch = WatchReadout()
    # one validation, at the end
    config = settings(average_weights_from=0.5, max_steps=6, eval_steps=6, warmup=0)
    train(config, tmp_path / "out", bases=bases, callbacks=[watch])
    model = PalamModel.from_pretrained(tmp_path / "out")
    saved = model.bridge.mapper.readout.weight
    assert torch.allclose(saved, torch.stack(watch.seen[3:]).mean(0), atol=1e-7)
    assert not torch.allclose(saved, watch.seen[-1], atol=1e-5)
    log = read_jsonl(tmp_path / "out" / "log.jsonl")
    rates = {entry["learning_rate"] for entry in log if "learning_rate" in entry}
    assert rates == {config.optim.lr * embedding_units(model.config.embedding_rms)}
