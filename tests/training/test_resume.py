"""A run that was interrupted and resumed is the run that was not, bit for bit."""

import json
import shutil

import pytest
import torch

from palam.errors import PalamError
from palam.training.run import train
from palam.training.trainer import newest_checkpoint


def losses(folder):
    """Losses and gradient norm by step; a later entry of a step takes the place of an earlier."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = ("loss", "grad_norm", "learning_rate", "eval_loss")
    return {(e["step"], name): e[name] for e in entries for name in kept if name in e}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# 21 rows in batches of 4, 2 of them accumulated: 3 steps an epoch
PLACES = {
    "middle of the second epoch": ({"eval_steps": 2}, 5, 4),
    "middle of the first epoch": ({"eval_steps": 1}, 3, 2),
    "end of an epoch": ({}, 4, 3),
    "end of an epoch, saved by steps": ({"eval_steps": 3}, 8, 6),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("objective", ["answers", "passages", "averaged", "text"])
def test_resumed_equals_uninterrupted(settings, bases, interrupted, tmp_path, objective, place):
    often, stop, saved = PLACES[place]
    if objective == "passages":
        objective, often = "answers", {**often, "passage_words": 2}
    if objective == "averaged":
        objective, often = "answers", {**often, "average": 0.2}
    chosen = settings(
        objective, fusion="transformer_softmax", accumulate=2, epochs=3, fusion_lr=1e-3, **often
    )
    whole = train(chosen, tmp_path / "whole", bases=bases)
    assert whole.bridge.fusion.layer.dropout.p > 0
    work = interrupted(chosen, tmp_path / "resumed", stop)
    assert newest_checkpoint(work).name == f"checkpoint-{saved}"
    torch.randn(7)  # the random state of another process
    train(chosen, tmp_path / "resumed", bases=bases, resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    results = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "resumed")
    ]
    for result in results:
        del result["training_seconds"]
    if objective == "text":  # its texts are tokenised as they are read
        for result in results:
            del result["texts"]
    assert results[0] == results[1]
    if "passage_words" not in often:  # there the losses alone show that it went on in the same way
        assert results[0]["best_step"] > saved, (
            "the weights compared are from before the interruption"
        )
    assert not work.exists()


def test_a_lora_resumes_too(settings, stop, tmp_path):
    pytest.importorskip("peft")
    chosen = settings(lora_rank=2, epochs=3)

    def run(out, **options):
        return train(chosen, out, **options)  # bases of its own: peft changes the LLM in place

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", callbacks=[stop(8)])
    run(tmp_path / "resumed", resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "resumed" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()


@pytest.mark.parametrize(
    "limit", [{"max_steps": 4}, {"epochs": 2}, {"epochs": 9, "lr": 1e-20, "patience": 2}]
)
def test_a_run_stopped_after_its_last_step_is_not_trained_further(
    settings, bases, interrupted, tmp_path, limit
):
    chosen = settings(**limit)
    train(chosen, tmp_path / "whole", bases=bases)
    interrupted(chosen, tmp_path / "resumed")
    train(chosen, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")


def test_the_patience_counter_survives(settings, bases, interrupted, tmp_path):
    """At such a rate no weight moves, and no validation is better than the first."""
    chosen = settings(lr=1e-20, eval_steps=1, epochs=4, patience=4)
    train(chosen, tmp_path / "whole", bases=bases)
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["steps"] == 5
    interrupted(chosen, tmp_path / "resumed", 4)
    train(chosen, tmp_path / "resumed", bases=bases, resume=True)
    assert json.loads((tmp_path / "resumed" / "results.json").read_text())["steps"] == 5


def test_the_newest_complete_checkpoint_is_taken(settings, bases, interrupted, tmp_path):
    chosen = settings(eval_steps=2)
    train(chosen, tmp_path / "whole", bases=bases)
    work = interrupted(chosen, tmp_path / "resumed", 5)
    whole = newest_checkpoint(work)
    incomplete = shutil.copytree(whole, work / "checkpoint-6")
    (incomplete / "trainer_state.json").unlink()
    (incomplete / "model.safetensors").write_bytes(b"half")
    shutil.copytree(whole, work / ".checkpoint-8-x7")
    shutil.copytree(whole, work / "checkpoint-old")
    assert newest_checkpoint(work) == whole
    assert whole.name == "checkpoint-4"
    train(chosen, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def test_a_moved_run_resumes(settings, bases, interrupted, tmp_path):
    chosen = settings(eval_steps=2)
    train(chosen, tmp_path / "whole", bases=bases)
    interrupted(chosen, tmp_path / "first", 9).rename(tmp_path / "second.partial")
    train(chosen, tmp_path / "second", bases=bases, resume=True)
    assert weights(tmp_path / "second") == weights(tmp_path / "whole")


def test_other_settings_are_refused(settings, bases, interrupted, tmp_path):
    interrupted(settings(), tmp_path / "out", 7)
    with pytest.raises(
        PalamError, match=r"has lr 0\.005, not 0\.001; resume with its settings"
    ) as caught:
        train(settings(lr=1e-3), tmp_path / "out", bases=bases, resume=True)
    assert "\n" not in str(caught.value)
    train(
        settings(dtype="auto"), tmp_path / "out", bases=bases, resume=True
    )  # as it was measured then


def test_nothing_to_resume(settings, bases, tmp_path):
    with pytest.raises(PalamError, match="nothing to resume"):
        train(settings(), tmp_path / "out", bases=bases, resume=True)
    assert not list(tmp_path.iterdir())


def test_only_safe_loads_and_no_pickled_arguments(
    settings, bases, interrupted, tmp_path, monkeypatch
):
    calls = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **kwargs: calls.append(kwargs) or load(*args, **kwargs)
    )
    work = interrupted(settings(), tmp_path / "out", 7)
    files = {path.name for path in newest_checkpoint(work).iterdir()}
    assert files == {
        "README.md", "config.json", "model.safetensors", "optimizer.pt", "processor_config.json", "rng_state.pth",
        "scheduler.pt", "trainer_state.json",
    }  # fmt: skip
    train(settings(), tmp_path / "out", bases=bases, resume=True)
    assert len(calls) >= 3  # optimiser, scheduler, random state
    assert all(call.get("weights_only") is True for call in calls)
