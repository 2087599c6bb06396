"""Learning from the LLM itself: KL between the LLM reading a text directly and reading it through the bridge."""

import json
from dataclasses import replace

import pytest
import torch
from plain_ridge import TEXTS

from palam import PalamError, PalamModel
from palam.inference import generation as generate
from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.template import Template
from palam.training.build import build_model
from palam.training.collator import Collator
from palam.training.config import TrainConfig
from palam.training.data import PrefixDataset, read_training_data
from palam.training.distillation import answer_prompts_with_llm
from palam.training.run import _dataset, train
from palam.training.trainer import PalamTrainer, PalamTrainingArguments


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text("\n".join(TEXTS[:14] * 3) + "\n", encoding="utf-8")
    return path


def one_batch(model, rows=4):
    data = PrefixDataset(model.processor, TEXTS[:rows], distill=True)
    return Collator(model.processor)(data.__getitems__(range(rows)))


def test_the_loss_is_the_divergence_row_by_row(tiny_model, tmp_path):
    model = tiny_model("xlmr", fusion="mean")
    trainer = PalamTrainer(model, PalamTrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    batch = one_batch(model)
    found = trainer.compute_loss(model, {**batch, "teacher": dict(batch["teacher"])})
    data, total, count = PrefixDataset(model.processor, TEXTS[:4]), 0.0, 0
    for index in range(4):
        first, rest = data.cut(index)
        answer = model.processor.continuation_ids(rest, 128)
        plain = model.processor.llm_tokenizer(first, add_special_tokens=False)["input_ids"]
        teacher = torch.tensor([[*model.processor.prefix_ids(), *plain, *answer]])
        theirs = model.llm(input_ids=teacher).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        row = data[index]
        ours = (
            model(torch.tensor([row["encoder_input_ids"]]), None, torch.tensor([row["input_ids"]]))
            .logits[0, -len(answer) - 1 : -1]
            .log_softmax(-1)
        )
        total += (theirs.exp() * (theirs - ours)).sum().item()
        count += len(answer)
    assert found.item() == pytest.approx(total / count, rel=1e-4)
    assert found.requires_grad


def test_a_bridge_that_gives_the_llms_own_embeddings_has_no_loss(tiny_model, tmp_path, monkeypatch):
    model = tiny_model("xlmr", fusion="mean")
    batch = one_batch(model)
    row = {name: batch["teacher"][name] for name in ("input_ids", "attention_mask")}
    embedded = model.build_llm_inputs(None, None, **row)
    monkeypatch.setattr(model, "assemble", lambda *_, **__: embedded)
    trainer = PalamTrainer(model, PalamTrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert trainer.compute_loss(model, batch).item() == pytest.approx(0, abs=1e-5)


def test_distilling_lowers_the_divergence(base_folder, english, tmp_path):
    settings = TrainConfig(
        encoder=str(base_folder("xlmr")), llm=str(base_folder("llama")), text=english, distill=True,
        init="random", epochs=8, batch_size=8, lr=1e-2, device="cpu", dtype="fp32",
    )  # fmt: skip
    train(settings, tmp_path / "bridge")
    log = (tmp_path / "bridge" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["eval_loss"] for line in log if "eval_loss" in line]
    assert losses[-1] < losses[0]


def test_the_llms_own_answers_to_prompts_are_learned_too(base_folder, english, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("{text} Topic:\nOf what is {text}?\n", encoding="utf-8")
    settings = TrainConfig(
        encoder=str(base_folder("xlmr")), llm=str(base_folder("llama")), text=english, distill=True, prompts=prompts,
        max_steps=2, batch_size=4, dtype="fp32", device="cpu",
    )  # fmt: skip
    model = build_model(settings, data := read_training_data(settings))
    rows = _dataset(settings, data, data.train, model)
    answer_prompts_with_llm(settings, rows, model)
    tokenizer, seen = model.processor.llm_tokenizer, set()
    asking = [
        replace(model.processor, template=Template.build("prompt", line, tokenizer))
        for line in prompts.read_text().splitlines()
    ]
    said = [
        generate(
            PalamModel(model.encoder, model.bridge, model.llm, one),
            rows.texts,
            llm_only=True,
            max_new_tokens=28,
        )
        for one in asking
    ]
    for epoch in range(4):
        rows.set_epoch(epoch)
        for index, row in enumerate(rows.__getitems__(range(len(rows)))):
            assert row["row"] == index
            for number, processor in enumerate(asking):
                before, after = processor.prefix_ids(), processor.suffix_ids()
                wanted = processor.answer_ids(said[number][index])
                if row["input_ids"] == [*before, TEXT_SLOT, *after, *wanted]:
                    own = tokenizer(rows.texts[index], add_special_tokens=False)["input_ids"]
                    assert row["teacher_ids"] == [*before, *own, *after, *wanted]
                    assert row["labels"][-len(wanted) :] == wanted
                    assert set(row["labels"][: -len(wanted)]) == {IGNORE}
                    seen.add((index, number))
    assert (
        len(seen) == len({index for index, _ in seen}) == len(rows)
    )  # of each text, one thing is asked
    assert len({number for _, number in seen}) == 2
    train(settings, tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)


def test_prompts_need_distilling_and_a_prompt(base_folder, english, tmp_path):
    with pytest.raises(PalamError, match="prompts are for --distill, in the mode prompt or chat"):
        TrainConfig(text=english, prompts=english)
    (empty := tmp_path / "empty.txt").write_text("")
    bases = {"encoder": str(base_folder("xlmr")), "llm": str(base_folder("llama"))}
    with pytest.raises(PalamError, match=r"empty\.txt holds no prompt"):
        train(TrainConfig(text=english, distill=True, prompts=empty, **bases), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_distilling_needs_raw_text():
    with pytest.raises(PalamError, match="distill needs raw text to learn from; give --text"):
        TrainConfig(task="demo", distill=True)
