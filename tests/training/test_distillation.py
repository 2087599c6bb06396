"""Distillation: KL between the LLM reading a text itself and reading it through the bridge."""

import json
from dataclasses import replace

import pytest
import torch
from helpers import read_jsonl
from plain_ridge import TEXTS

from palam import PalamError
from palam.inference.generation import generate_ids
from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.template import Template
from palam.training.build import build_dataset, build_model, prepare_for_training
from palam.training.collator import Collator
from palam.training.config import TrainConfig
from palam.training.data import read_training_data
from palam.training.distillation import (
    MAX_ANSWER_TOKENS,
    answer_prompts_with_llm,
    distillation_loss,
    hidden_distance,
    using_template,
)
from palam.training.raw_text import RawTextDataset
from palam.training.run import train
from palam.training.trainer import PalamTrainer, PalamTrainingArguments


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text("\n".join(TEXTS[:14] * 3) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def distilling(base_folder, english):
    """`distilling(lr=1e-2, ...)`: the configuration of a run on raw text."""

    def build(**changes):
        common = {
            "encoder": str(base_folder("xlmr")),
            "llm": str(base_folder("llama")),
            "text_file": english,
            "distill": True,
            "device": "cpu",
            "dtype": "fp32",
        }
        return TrainConfig.from_settings(common | changes)

    return build


def one_batch(model, rows=4):
    data = RawTextDataset(model.processor, TEXTS[:rows], distill=True)
    return Collator(model.processor)(data.__getitems__(range(rows)))


def trainer_of(model, folder, **arguments):
    options = {"output_dir": str(folder), "use_cpu": True, **arguments}
    return PalamTrainer(model, PalamTrainingArguments(**options))


def test_the_loss_is_the_divergence_row_by_row(tiny_model, tmp_path):
    model = tiny_model("xlmr", fusion="mean")
    batch = one_batch(model)
    loss = trainer_of(model, tmp_path).compute_loss(model, batch)
    data = RawTextDataset(model.processor, TEXTS[:4])
    total = 0.0
    count = 0
    for index in range(4):
        beginning, rest = data.objectives["continue"].cut(index, 0)
        answer = model.processor.continuation_ids(rest, 128)
        tokens = model.processor.llm_tokenizer(beginning, add_special_tokens=False)["input_ids"]
        teacher = torch.tensor([[*model.processor.prefix_ids(), *tokens, *answer]])
        theirs = model.llm(input_ids=teacher).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        row = data[index]
        output = model(
            encoder_input_ids=torch.tensor([row["encoder_input_ids"]]),
            input_ids=torch.tensor([row["input_ids"]]),
        )
        ours = output.logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        total += (theirs.exp() * (theirs - ours)).sum().item()
        count += len(answer)
    assert loss.item() == pytest.approx(total / count, rel=1e-4)
    assert loss.requires_grad


def test_a_bridge_that_gives_the_llms_own_embeddings_has_no_loss(tiny_model, tmp_path, monkeypatch):
    model = tiny_model("xlmr", fusion="mean")
    batch = one_batch(model)
    embedded = model.llm_inputs(**batch["teacher"])
    monkeypatch.setattr(model, "llm_inputs", lambda **_: embedded)
    loss = trainer_of(model, tmp_path, hidden_weight=1.0).compute_loss(model, batch)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_hidden_states_are_compared_row_by_row(tiny_model, tmp_path):
    model = tiny_model("xlmr", fusion="mean")
    plain = trainer_of(model, tmp_path).compute_loss(model, one_batch(model))
    weighted = trainer_of(model, tmp_path, hidden_weight=3.0)
    loss = weighted.compute_loss(model, one_batch(model))
    data = RawTextDataset(model.processor, TEXTS[:4], distill=True)
    total = 0.0
    count = 0
    for index in range(4):
        row = data[index]
        answer = sum(label != IGNORE for label in row["labels"])
        teacher = torch.tensor([row["teacher_ids"]])
        read = model.llm(input_ids=teacher, output_hidden_states=True).hidden_states[-1]
        inputs = model.llm_inputs(
            encoder_input_ids=torch.tensor([row["encoder_input_ids"]]),
            input_ids=torch.tensor([row["input_ids"]]),
        )
        output = model.llm(inputs_embeds=inputs.inputs_embeds, output_hidden_states=True)
        theirs = read[0, -answer - 1 : -1]
        ours = output.hidden_states[-1][0, -answer - 1 : -1]
        total += ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).square().sum().item()
        count += answer
    assert loss.item() == pytest.approx(plain.item() + 3 * total / count, rel=1e-4)
    assert loss.requires_grad


def test_the_distance_of_hidden_states():
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    teacher_states = torch.tensor([[[5.0, 5.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    labels = torch.tensor([[IGNORE, 0, 1]])  # the last position is before no label
    distance = hidden_distance(states, teacher_states, labels)
    assert distance.item() == pytest.approx((0.25 + 0) / 2)
    assert hidden_distance(states, teacher_states, labels, 1).item() == pytest.approx(0.25)
    nothing = hidden_distance(states, teacher_states, torch.full((1, 3), IGNORE))
    assert nothing.item() == 0


def test_the_loss_of_logits():
    logits = torch.tensor([[[0.0, 0.0], [9.0, 9.0], [1.0, 1.0]]])
    teacher_logits = torch.log(torch.tensor([[[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]]))
    labels = torch.tensor([[IGNORE, IGNORE, 0, 1]])  # nothing follows the last position
    expected = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    loss = distillation_loss(logits, teacher_logits, labels)
    assert loss.item() == pytest.approx(expected.item() / 2)
    summed = distillation_loss(logits, teacher_logits, labels, num_items_in_batch=1)
    assert summed.item() == pytest.approx(expected.item())
    nothing = distillation_loss(logits, teacher_logits, torch.full((1, 4), IGNORE))
    assert nothing.item() == 0


def test_distilling_lowers_the_divergence(distilling, tmp_path):
    config = distilling(init="random", epochs=8, batch_size=8, lr=4.5e-3)
    train(config, tmp_path / "bridge")
    log = (tmp_path / "bridge" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["eval_loss"] for line in log if "eval_loss" in line]
    assert losses[-1] < losses[0]


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("{text} Topic:\nOf what is {text}?\n", encoding="utf-8")
    return path


def prompted_dataset(config, model, data):
    dataset = build_dataset(config, data, data.train, model.processor)
    prompts_file = config.optim.prompts_file
    answer_prompts_with_llm(model, dataset, prompts_file, mode=config.model.mode, seed=0)
    return dataset


def test_the_llms_own_answers_to_prompts_are_learned_too(distilling, prompts_file, tmp_path):
    config = distilling(prompts_file=prompts_file, max_steps=2, batch_size=4)
    data = read_training_data(config.data, seed=0)
    model = build_model(config.model, data, config.runtime)
    own_processor = model.processor
    dataset = prompted_dataset(config, model, data)
    assert model.processor is own_processor
    tokenizer = model.processor.llm_tokenizer
    prompts = prompts_file.read_text().splitlines()
    processors = []
    answers = []
    for prompt in prompts:
        template = Template.build("prompt", prompt, tokenizer)
        processors.append(replace(model.processor, template=template))
        with using_template(model, template):
            texts = dataset.texts
            answers.append(
                generate_ids(model, texts, llm_only=True, max_new_tokens=MAX_ANSWER_TOKENS)
            )
    seen = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for index, row in enumerate(dataset.__getitems__(range(len(dataset)))):
            assert row["row"] == index
            for number, processor in enumerate(processors):
                answer = [*answers[number][index], *processor.end_ids()]
                by_bridge = [*processor.prefix_ids(), TEXT_SLOT, *processor.suffix_ids()]
                if row["input_ids"] != [*by_bridge, *answer]:
                    continue
                by_llm = tokenizer(prompts[number].replace("{text}", dataset.texts[index]))
                assert row["teacher_ids"] == [*by_llm["input_ids"], *answer]
                assert row["labels"] == [IGNORE] * len(by_bridge) + answer
                seen.add((index, number))
    # of each text, one thing is asked
    assert len(seen) == len({index for index, _ in seen}) == len(dataset)
    assert len({number for _, number in seen}) == 2
    train(config, tmp_path / "out")
    log = read_jsonl(tmp_path / "out" / "log.jsonl")
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)


def test_answering_prompts_leaves_a_lora_trainable(distilling, prompts_file):
    pytest.importorskip("peft")
    config = distilling(prompts_file=prompts_file, lora_rank=2)
    data = read_training_data(config.data, seed=0)
    model = build_model(config.model, data, config.runtime)
    prepare_for_training(model, config.optim, config.runtime)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert any("lora" in name for name in trainable)
    prompted_dataset(config, model, data)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trainable


def test_prompts_need_distilling_and_a_prompt(distilling, english, tmp_path):
    with pytest.raises(PalamError, match="prompts are for --distill, in the mode prompt or chat"):
        distilling(distill=False, prompts_file=english)
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(PalamError, match=r"empty\.txt holds no prompt"):
        train(distilling(prompts_file=empty), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_distilling_needs_raw_text():
    with pytest.raises(PalamError, match="distill needs raw text to learn from; give --text"):
        TrainConfig.from_settings({"task": "demo", "distill": True})
