"""Rows of raw text for several objectives, and what is learned from a mixed batch."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from plain_ridge import TEXTS

from palam import PalamError
from palam.models.model_config import ModelConfig
from palam.models.processing import IGNORE
from palam.models.template import SAME_IN_ENGLISH, Template
from palam.training import distillation
from palam.training.collator import Collator
from palam.training.config import TrainConfig
from palam.training.data import TrainingData, hold_out_labels
from palam.training.distillation import distillation_loss
from palam.training.objectives.base import LabelledText
from palam.training.pretraining import PretrainOptimConfig, with_general_prompt
from palam.training.raw_text import RawTextDataset
from palam.training.run import train
from palam.training.trainer import PalamTrainer, PalamTrainingArguments


def test_objectives_are_drawn_by_their_weights(tiny_model):
    data = RawTextDataset(
        tiny_model().processor, TEXTS * 10, objectives={"repeat": 3, "continue": 1}
    )
    counts = Counter()
    for epoch in range(4):
        data.set_epoch(epoch)
        names = [data.objective_of(index) for index in range(len(data))]
        counts.update(names)
        rows = data.__getitems__(range(8))
        for index, row in enumerate(rows):
            assert row == data.objectives[names[index]].rows([index], epoch)[0]
    assert abs(counts["repeat"] / counts.total() - 0.75) < 0.06


def test_answers_are_drawn_only_where_there_are_some(tiny_model):
    data = RawTextDataset(tiny_model().processor, TEXTS)
    assert {data.objective_of(index) for index in range(len(data))} == {"continue"}
    data.source.prompted.update({index: {"row": index} for index in range(len(data))})
    assert {data.objective_of(index) for index in range(len(data))} == {"continue", "answer"}


def test_a_mixed_batch_adds_up_what_is_taught_and_what_is_said(tiny_model, tmp_path):
    model = tiny_model("xlmr", fusion="mean")
    data = RawTextDataset(
        model.processor, TEXTS, objectives={"repeat": 1, "continue": 1}, distill=True
    )
    indices = list(range(6))
    kinds = [data.objective_of(index) for index in indices]
    assert len(set(kinds)) == 2
    rows = data.__getitems__(indices)
    trainer = PalamTrainer(model, PalamTrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    loss = trainer.compute_loss(model, Collator(model.processor)(rows))
    total = 0.0
    num_labels = 0
    for row, kind in zip(rows, kinds, strict=True):
        labels = torch.tensor([row["labels"]])
        inputs = {
            "encoder_input_ids": torch.tensor([row["encoder_input_ids"]]),
            "input_ids": torch.tensor([row["input_ids"]]),
        }
        count = int((labels != IGNORE).sum())
        num_labels += count
        if kind == "repeat":
            assert "teacher_ids" not in row
            total += model(**inputs, labels=labels).loss.item() * count
        else:
            keep = count + 1
            logits = model(**inputs).logits[:, -keep:]
            teacher = model(input_ids=torch.tensor([row["teacher_ids"]])).logits[:, -keep:]
            total += distillation_loss(logits, teacher, labels, num_items_in_batch=1).item()
    assert loss.item() == pytest.approx(total / num_labels, rel=1e-4)


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text("\n".join(TEXTS * 3) + "\n", encoding="utf-8")
    return path


def test_a_general_bridge_learns_to_say_the_text(base_folder, english, tmp_path):
    common = {"device": "cpu", "dtype": "fp32", "text_file": english, "max_eval_samples": 8}
    bases = {"encoder": str(base_folder("xlmr")), "llm": str(base_folder("llama"))}
    config = TrainConfig.from_settings(
        {
            **TrainConfig(
                model=with_general_prompt(ModelConfig(**bases)),
                data=TrainConfig.from_settings(common).data,
                optim=PretrainOptimConfig(epochs=6, eval_steps=None, batch_size=8, lr=5e-3),
            ).settings(),
            **common,
        }
    )
    assert config.optim.objectives == {"repeat": 1.0}
    assert config.optim.swap_words > 0
    model = train(config, tmp_path / "general")
    prefix, suffix = SAME_IN_ENGLISH.split("{text}")
    assert model.processor.template == Template("prompt", prefix, suffix)
    log = (tmp_path / "general" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["eval_loss"] for line in log if "eval_loss" in line]
    assert losses[-1] < losses[0]


def test_mapped_vectors_are_dropped_in_training_alone(tiny_model):
    model = tiny_model("xlmr", fusion="mean")
    batch = model.processor(TEXTS[:6])
    whole = model.llm_inputs(**batch).inputs_embeds
    model.vector_dropout = 0.5
    assert torch.equal(model.llm_inputs(**batch).inputs_embeds, whole)
    model.train()
    dropped = model.llm_inputs(**batch).inputs_embeds
    is_zero = (dropped == 0).all(-1) & (whole != 0).any(-1)
    assert 0.3 < is_zero.sum() / batch["encoder_attention_mask"].sum() < 0.7
    same = ~is_zero
    assert torch.equal(dropped[same], whole[same])


MISTAKES = [
    ({"task": "demo", "objectives": {"repeat": 1}}, "--objectives needs raw text"),
    ({"task": "demo", "swap_words": 0.1}, "--swap-words needs raw text"),
    ({"text_file": "t.txt", "objectives": {"say": 1}}, "objective 'say' is not known"),
    ({"text_file": "t.txt", "objectives": {"repeat": 0}}, "has the weight 0"),
    ({"text_file": "t.txt", "objectives": {"answer": 1}}, "answer and prompts_file need"),
    ({"text_file": "t.txt", "drop_words": 1.0}, "drop_words is 1.0"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_what_excludes_each_other_is_refused(settings, message):
    with pytest.raises(PalamError, match=message):
        TrainConfig.from_settings(settings)


# ------------------------------------------------------- objectives that not every text is for
def test_a_text_that_no_objective_is_for_is_no_row(tiny_model):
    data = RawTextDataset(tiny_model().processor, TEXTS[:5], objectives={"answer": 1})
    assert len(data) == len(data.lengths) == 0
    answered = {number: {"row": number} for number in (1, 4)}
    data.source.prompted.update(answered)
    data.set_epoch(0)
    assert len(data) == len(data.lengths) == 2
    assert data.__getitems__([1, 0]) == [answered[4], answered[1]]


def test_soft_labels_alone_are_learned(settings, bases, soft_labels, tmp_path):
    config = settings("text", objectives={"label": 1}, soft_label_file=soft_labels, epochs=2)
    train(config, tmp_path / "bridge", bases=bases)
    results = json.loads((tmp_path / "bridge" / "results.json").read_text())
    assert results["rows"] == 19  # of 22 lines, of which three say what is validated on
    assert results["validation_loss"] > 0
    assert results["validation"].endswith("in whose place 1 of 8 labelled texts are")


def test_labels_are_held_out_once_and_by_the_seed():
    rows = [LabelledText(f"text {number}", "{text}", "word") for number in range(60)]
    data = TrainingData(None, [], [], "en", "the last line", labelled=rows)
    parts = hold_out_labels(data, None, seed=0)
    assert len(parts.labelled_dev) == 3
    assert sorted([*parts.labelled, *parts.labelled_dev]) == sorted(rows)
    assert hold_out_labels(data, None, seed=0) == parts
    assert hold_out_labels(data, None, seed=1) != parts
    assert len(hold_out_labels(data, 2, seed=0).labelled_dev) == 2
    assert hold_out_labels(parts, None, seed=0) is parts
    with pytest.raises(PalamError, match="too few to hold some out"):
        hold_out_labels(replace(data, labelled=rows[:1]), None, seed=0)


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("{text} Topic:\nOf what is {text}?\n", encoding="utf-8")
    return path


@pytest.fixture
def answering(settings, prompts_file):
    """The settings of a run that learns answers to prompts alone."""
    return settings(
        "text", objectives={"answer": 1}, distill=True, prompts_file=prompts_file, epochs=2
    )


def test_answers_alone_are_learned(answering, bases, tmp_path):
    train(answering, tmp_path / "bridge", bases=bases)
    results = json.loads((tmp_path / "bridge" / "results.json").read_text())
    assert results["rows"] == 19  # of 22 lines, of which three say what is validated on
    assert results["validation_loss"] > 0


def test_texts_without_an_answer_are_left_out(answering, bases, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "generate_ids", silent_every(3))
    train(answering, tmp_path / "bridge", bases=bases)
    results = json.loads((tmp_path / "bridge" / "results.json").read_text())
    assert 7 < results["rows"] < 21


def test_an_llm_that_answers_nothing_is_one_line(answering, bases, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "generate_ids", silent_every(1))
    with pytest.raises(PalamError, match="the LLM answers nothing to the prompts"):
        train(answering, tmp_path / "bridge", bases=bases)
    assert not (tmp_path / "bridge.partial").exists()


def silent_every(count):
    """An LLM that answers with one token, and nothing to the last of so many texts."""

    def generate(model, texts, **options):
        return [[] if (place + 1) % count == 0 else [5] for place in range(len(texts))]

    return generate
