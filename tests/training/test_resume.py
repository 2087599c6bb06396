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
    figures = ("loss", "grad_norm", "learning_rate", "eval_loss")
    return {(e["step"], name): e[name] for e in entries for name in figures if name in e}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


# 21 rows in batches of 4, 2 of them accumulated: 3 steps an epoch
PLACES = {
    "middle of the second epoch": ({"eval_steps": 2}, 5, 4),
    "middle of the first epoch": ({"eval_steps": 1}, 3, 2),
    "end of an epoch": ({}, 4, 3),
    "end of an epoch, saved by steps": ({"eval_steps": 3}, 8, 6),
}
OBJECTIVES = {
    "answers": ("answers", {}),
    "passages": ("answers", {"passage_words": 2}),
    "averaged": ("answers", {"average_weights_from": 0.2}),
    "text": ("text", {}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_resumed_equals_uninterrupted(settings, bases, interrupted, tmp_path, objective, place):
    validation, stop, saved = PLACES[place]
    source, changes = OBJECTIVES[objective]
    config = settings(
        source,
        fusion="transformer_softmax",
        gradient_accumulation_steps=2,
        epochs=3,
        fusion_lr=1e-3,
        **validation,
        **changes,
    )
    whole = train(config, tmp_path / "whole", bases=bases)
    assert whole.bridge.fusion.layer.dropout.p > 0
    work = interrupted(config, tmp_path / "resumed", stop)
    assert newest_checkpoint(work).name == f"checkpoint-{saved}"
    torch.randn(7)  # the random state of another process
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    results = [results_of(tmp_path / name) for name in ("whole", "resumed")]
    for result in results:
        del result["training_seconds"]
        if objective == "text":  # its texts are tokenised as they are read
            del result["texts"]
    assert results[0] == results[1]
    if objective != "passages":  # there the losses alone show that it was resumed rightly
        message = "the weights compared are from before the interruption"
        assert results[0]["best_step"] > saved, message
    assert not work.exists()


def test_a_lora_resumes_too(settings, stop, tmp_path):
    pytest.importorskip("peft")
    config = settings(lora_rank=2, epochs=3)

    def run(out, **options):
        return train(config, out, **options)  # bases of its own: peft changes the LLM in place

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", callbacks=[stop(8)])
    run(tmp_path / "resumed", resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        resumed = (tmp_path / "resumed" / name).read_bytes()
        assert resumed == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    "limit", [{"max_steps": 4}, {"epochs": 2}, {"epochs": 9, "lr": 1e-20, "patience": 2}]
)
def test_a_run_stopped_after_its_last_step_is_not_trained_further(
    settings, bases, interrupted, tmp_path, limit
):
    config = settings(**limit)
    train(config, tmp_path / "whole", bases=bases)
    interrupted(config, tmp_path / "resumed")
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")


def test_the_patience_counter_survives(settings, bases, interrupted, tmp_path):
    """At such a rate no weight moves, and no validation is better than the first."""
    config = settings(lr=1e-20, eval_steps=1, epochs=4, patience=4)
    train(config, tmp_path / "whole", bases=bases)
    assert results_of(tmp_path / "whole")["steps"] == 5
    interrupted(config, tmp_path / "resumed", 4)
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert results_of(tmp_path / "resumed")["steps"] == 5


def test_the_newest_complete_checkpoint_is_taken(settings, bases, interrupted, tmp_path):
    config = settings(eval_steps=2)
    train(config, tmp_path / "whole", bases=bases)
    work = interrupted(config, tmp_path / "resumed", 5)
    whole = newest_checkpoint(work)
    incomplete = shutil.copytree(whole, work / "checkpoint-6")
    (incomplete / "trainer_state.json").unlink()
    (incomplete / "model.safetensors").write_bytes(b"half")
    shutil.copytree(whole, work / ".checkpoint-8-x7")
    shutil.copytree(whole, work / "checkpoint-old")
    assert newest_checkpoint(work) == whole
    assert whole.name == "checkpoint-4"
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def test_a_moved_run_resumes(settings, bases, interrupted, tmp_path):
    config = settings(eval_steps=2)
    train(config, tmp_path / "whole", bases=bases)
    interrupted(config, tmp_path / "first", 9).rename(tmp_path / "second.partial")
    train(config, tmp_path / "second", bases=bases, resume=True)
    assert weights(tmp_path / "second") == weights(tmp_path / "whole")


def test_other_settings_are_refused(settings, bases, interrupted, tmp_path):
    interrupted(settings(), tmp_path / "out", 7)
    with pytest.raises(
        PalamError, match=r"has lr 0\.005, not 0\.001; resume with its settings"
    ) as caught:
        train(settings(lr=1e-3), tmp_path / "out", bases=bases, resume=True)
    assert "\n" not in str(caught.value)
    # The dtype is as it was measured then.
    train(settings(dtype="auto"), tmp_path / "out", bases=bases, resume=True)


def test_nothing_to_resume(settings, bases, tmp_path):
    with pytest.raises(PalamError, match="nothing to resume"):
        train(settings(), tmp_path / "out", bases=bases, resume=True)
    assert not list(tmp_path.iterdir())


def test_only_safe_loads_and_no_pickled_arguments(
    settings, bases, interrupted, tmp_path, monkeypatch
):
    calls = []
    load = torch.load

    def watched_load(*args, **kwargs):
        calls.append(kwargs)
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched_load)
    work = interrupted(settings(), tmp_path / "out", 7)
    files = {path.name for path in newest_checkpoint(work).iterdir()}
    assert files == {
        "README.md",
        "config.json",
        "model.safetensors",
        "optimizer.pt",
        "processor_config.json",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    train(settings(), tmp_path / "out", bases=bases, resume=True)
    assert len(calls) >= 3  # optimiser, scheduler, random state
    assert all(call.get("weights_only") is True for call in calls)
