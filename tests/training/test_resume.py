"""A run that was interrupted and resumed is the run that was not, bit for bit."""

import json
import shutil

import pytest
import torch
from helpers import read_jsonl

from palam.errors import PalamError
from palam.training.checksums import write_checksums
from palam.training.run import train
from palam.training.run_folder import EARLIER_NAMES, INPUT_WORDS
from palam.training.trainer import newest_checkpoint


def losses(folder):
    """Losses and gradient norm by step; a later entry of a step takes the place of an earlier."""
    entries = read_jsonl(folder / "log.jsonl")
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
    assert results[0] == results[1]
    if objective != "passages":  # there the losses alone show that it was resumed rightly
        message = "the weights compared are from before the interruption"
        assert results[0]["best_step"] > saved, message
    assert not work.exists()


def texts_read(steps, validations, each=4, raw_lines=19, validated=3):
    """Of a run on raw text: those of the batches that were used, and those that validated."""
    epochs, further = divmod(steps, -(-raw_lines // each))
    return epochs * raw_lines + further * each + validations * validated


def test_a_text_is_counted_as_its_batch_is_used(settings, bases, interrupted, tmp_path):
    config = settings("text", eval_steps=2, max_steps=8)  # five steps are an epoch
    train(config, tmp_path / "whole", bases=bases)
    (stats,) = results_of(tmp_path / "whole")["texts"].values()
    assert stats["texts"] == texts_read(8, validations=4)
    for step in (3, 5, 7, None):
        out = tmp_path / f"resumed-{step}"
        interrupted(config, out, step)
        train(config, out, bases=bases, resume=True)
        assert results_of(out)["texts"] == results_of(tmp_path / "whole")["texts"], step


def test_a_checkpoint_without_counts_is_resumed_too(settings, bases, interrupted, tmp_path):
    config = settings("text", eval_steps=2, max_steps=8)
    checkpoint = newest_checkpoint(interrupted(config, tmp_path / "out", 5))
    (checkpoint / "read_texts.json").unlink()
    (checkpoint / "checksums.json").unlink()
    write_checksums(checkpoint)
    train(config, tmp_path / "out", bases=bases, resume=True)
    (stats,) = results_of(tmp_path / "out")["texts"].values()
    assert stats["texts"] == texts_read(8, 4) - texts_read(4, 2)


def test_soft_labels_are_drawn_again_as_they_were(settings, bases, interrupted, tmp_path):
    config = settings("soft", epochs=3)
    whole = train(config, tmp_path / "whole", bases=bases)
    assert results_of(tmp_path / "whole")["rows"] == 21 + 8
    interrupted(config, tmp_path / "resumed", 10)  # in the second epoch
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert whole.config.task["name"] == "sib200"


def test_other_soft_labels_are_other_rows(settings, bases, interrupted, soft_labels, tmp_path):
    own = tmp_path / "soft.jsonl"
    own.write_text(soft_labels.read_text())
    config = settings("soft", soft_label_file=own)
    interrupted(config, tmp_path / "out", 9)
    own.write_text(soft_labels.read_text().replace("-1.0", "-2.0"))
    with pytest.raises(PalamError, match="the training rows changed"):
        train(config, tmp_path / "out", bases=bases, resume=True)


@pytest.mark.parametrize("objective", ["answers", "text"])
def test_words_of_other_languages_are_drawn_again_as_they_were(
    settings, bases, interrupted, lexicon, tmp_path, objective
):
    config = settings(objective, lexicon=lexicon, epochs=3)
    train(config, tmp_path / "whole", bases=bases)
    interrupted(config, tmp_path / "resumed", 10)  # in the second epoch
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    train(settings(objective, epochs=3), tmp_path / "plain", bases=bases)
    assert losses(tmp_path / "plain") != losses(tmp_path / "whole")


def test_another_lexicon_is_other_rows(settings, bases, interrupted, lexicon, tmp_path):
    own = tmp_path / "lexicon.csv"
    own.write_text(lexicon.read_text(encoding="utf-8"), encoding="utf-8")
    config = settings(lexicon=own)
    interrupted(config, tmp_path / "out", 9)
    own.write_text(lexicon.read_text(encoding="utf-8") + "fox,හිවලා,Sinhala\n", encoding="utf-8")
    with pytest.raises(PalamError, match="the training rows changed"):
        train(config, tmp_path / "out", bases=bases, resume=True)


def test_two_encoders_resume_too(settings, stop, base_folder, tmp_path):
    config = settings(second_encoder=str(base_folder("t5")), fusion="global_softmax", epochs=3)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", callbacks=[stop(8)])
    train(config, tmp_path / "resumed", resume=True)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


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
    (incomplete / "model.safetensors").write_bytes(b"half")
    shutil.copytree(whole, work / ".checkpoint-8-x7")
    shutil.copytree(whole, work / "checkpoint-old")
    assert newest_checkpoint(work) == whole
    assert whole.name == "checkpoint-4"
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"missing": lambda path: path.unlink(), "flipped": flip}
FILES = [
    "model.safetensors",
    "optimizer.pt",
    "read_texts.json",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
]


@pytest.fixture
def two_checkpoints(settings, bases, interrupted, tmp_path):
    """A run's configuration and working folder: the best checkpoint is older than the newest."""
    config = settings(eval_steps=2, lr=1e-20, epochs=2)  # no weight moves: the first is the best
    work = interrupted(config, tmp_path / "resumed", 5)
    assert {path.name for path in work.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    return config, work


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_falls_back_to_the_newest_whole_one(two_checkpoints, damage, file):
    _, work = two_checkpoints
    assert newest_checkpoint(work).name == "checkpoint-4"
    DAMAGES[damage](work / "checkpoint-4" / file)
    assert newest_checkpoint(work).name == "checkpoint-2"


def test_from_an_older_checkpoint_the_result_is_the_same(two_checkpoints, bases, tmp_path):
    config, work = two_checkpoints
    train(config, tmp_path / "whole", bases=bases)
    (work / "checkpoint-4" / "optimizer.pt").unlink()
    train(config, tmp_path / "resumed", bases=bases, resume=True)
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")


def resume_refusal(config, bases, out):
    with pytest.raises(PalamError) as caught:
        train(config, out, bases=bases, resume=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_the_best_checkpoint_no_other_result_is_saved(two_checkpoints, bases, tmp_path):
    config, work = two_checkpoints
    flip(work / "checkpoint-2" / "model.safetensors")
    message = resume_refusal(config, bases, tmp_path / "resumed")
    assert "no complete checkpoint; damaged: checkpoint-4, checkpoint-2" in message
    assert work.is_dir()


@pytest.mark.parametrize("name", ["results.json", "inputs.json", "settings.yaml"])
@pytest.mark.parametrize("content", [None, b"", b"[1]", b"\xff\xfe{"])
def test_a_damaged_record_is_one_line(two_checkpoints, bases, tmp_path, name, content):
    config, work = two_checkpoints
    (work / name).unlink()
    if content is not None:
        (work / name).write_bytes(content)
    resume_refusal(config, bases, tmp_path / "resumed")


def renamed_as_before(inputs, prompts, start):
    """A run's inputs by the names that files of before 0.1.0 have."""
    words = {name: earlier for earlier, name in EARLIER_NAMES.items()}
    words |= {"prompts": str(prompts), "start": f"the bridge {start}"}
    return {words[name]: digest for name, digest in inputs.items() if name != "processes"}


def test_a_record_of_earlier_names_is_understood(settings, bases, interrupted, tmp_path):
    start = tmp_path / "start"
    train(settings(max_steps=1), start, bases=bases)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("{text} Topic:\n", encoding="utf-8")
    options = {"distill": True, "prompts_file": prompts, "init_from": start}
    config = settings("text", **options, max_steps=4, eval_steps=2)
    work = interrupted(config, tmp_path / "out", 3)
    inputs = json.loads((work / "inputs.json").read_text())
    assert inputs.keys() == INPUT_WORDS.keys()
    earlier = renamed_as_before(inputs, prompts, start)
    (work / "inputs.json").write_text(json.dumps({**earlier, str(prompts): "another"}))
    message = resume_refusal(config, bases, tmp_path / "out")
    assert message.startswith(f"{prompts} changed since the interrupted run began")
    (work / "inputs.json").write_text(json.dumps(earlier))
    train(config, tmp_path / "out", bases=bases, resume=True)


@pytest.mark.parametrize(("split", "rows"), [("train", "training"), ("dev", "validation")])
def test_other_data_are_refused(settings, bases, interrupted, data_folder, tmp_path, split, rows):
    data = shutil.copytree(data_folder, tmp_path / "data")
    config = settings(data=data, max_steps=4, eval_steps=2)
    interrupted(config, tmp_path / "out", 3)
    path = data / "sib200" / f"{split}.eng_Latn.jsonl"
    content = path.read_text()
    path.write_text(content.replace('"text": "', '"text": "also ', 1))
    message = resume_refusal(config, bases, tmp_path / "out")
    assert message.startswith(f"the {rows} rows changed since the interrupted run began")
    path.write_text(content)
    train(config, tmp_path / "out", bases=bases, resume=True)


def test_other_raw_text_is_refused(settings, bases, interrupted, text_file, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text_file.read_text())
    config = settings("text", text_file=path, max_steps=4, eval_steps=2)
    interrupted(config, tmp_path / "out", 3)
    path.write_text(text_file.read_text().replace("\n", " more\n", 1))
    assert "the training rows changed" in resume_refusal(config, bases, tmp_path / "out")


def test_another_start_is_refused(settings, bases, interrupted, tmp_path):
    start = tmp_path / "start"
    train(settings(max_steps=1), start, bases=bases)
    config = settings(init_from=start, max_steps=4, eval_steps=2)
    interrupted(config, tmp_path / "out", 3)
    train(settings(max_steps=1, seed=1), start, bases=bases)
    message = resume_refusal(config, bases, tmp_path / "out")
    assert message.startswith(f"the bridge {start} changed since the interrupted run began")


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
        "checksums.json",
        "config.json",
        "model.safetensors",
        "optimizer.pt",
        "processor_config.json",
        "read_texts.json",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    train(settings(), tmp_path / "out", bases=bases, resume=True)
    assert len(calls) >= 3  # optimiser, scheduler, random state
    assert all(call.get("weights_only") is True for call in calls)


def test_a_run_begun_with_an_older_tokenisation_goes_on_with_it(
    settings, bases, interrupted, tmp_path
):
    config = settings(mode="prompt", max_steps=4, eval_steps=2)
    work = interrupted(config, tmp_path / "out", 3)
    checkpoint = newest_checkpoint(work)
    path = checkpoint / "processor_config.json"
    content = json.loads(path.read_text())
    assert content["tokenization"] == 2
    del content["tokenization"]  # as before there were versions
    content["template"]["suffix"] += "!"
    path.write_text(json.dumps(content))
    (checkpoint / "checksums.json").unlink()
    write_checksums(checkpoint)
    model = train(config, tmp_path / "out", bases=bases, resume=True)
    saved = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert saved["tokenization"] == model.processor.tokenization == 1
    assert saved["template"] == content["template"]
