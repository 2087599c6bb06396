"""The fine-tuned encoder: it learns, it is a copy, and resumed is uninterrupted."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import refusal
from stopping import stop_finetuning
from torch import nn

from palam.bench.baselines import finetune_checkpoints
from palam.bench.baselines.base import BaselineInput
from palam.bench.baselines.finetune import (
    LabelledTokens,
    MeanPoolClassifier,
    build_classifier,
    finetune,
)
from palam.models.backbones.encoder import load_encoder
from palam.models.bases import Bases
from palam.models.model_config import ModelConfig
from palam.tasks.registry import get_task
from palam.tasks.task import Example, Task
from palam.training.config import RuntimeConfig
from palam.training.data import TrainingData

TASK = Task(
    name="animals",
    family="animals",
    labels={"dog": "dog", "rice": "rice"},
    prompt="{text}\nTopic:",
    paper_text="{text}",
    languages=("en",),
)
WORDS = {"dog": "the lazy dog jumps", "rice": "rice price went up"}
RATES = (1e-5, 3e-3)


def examples(count):
    """Texts that a word tells apart, of both labels in turn."""
    made = []
    for row in range(count):
        label = list(WORDS)[row % 2]
        text = f"{WORDS[label]} {'at school ' * (row % 3)}".strip()
        made.append(Example(row, {"text": text}, label))
    return made


DATA = TrainingData(TASK, examples(160), examples(12), "en", "")
ROWS = {"en": examples(10), "si": [Example(0, {"text": "මම ගෙදර යනවා"}, "dog")]}


@pytest.fixture
def loaded(base_folder):
    """`loaded("bert")`: the model's configuration and the frozen encoder."""

    def load(family):
        folder = str(base_folder(family))
        return ModelConfig(encoder=folder, llm="unused", max_length=24), load_encoder(folder)

    return load


def trained(loaded_encoder, seed=0, task=TASK, folder=None):
    model, encoder = loaded_encoder
    with tempfile.TemporaryDirectory() as new_folder:
        given = BaselineInput(
            model=model,
            runtime=RuntimeConfig(device="cpu", dtype="fp32", seed=seed),
            data=DATA,
            task=task,
            rows=ROWS,
            batch_size=32,
            load_bases=lambda: Bases(encoder, None),
            folder=Path(new_folder) if folder is None else folder,
        )
        return finetune(given, rates=RATES, epochs=3)


@pytest.mark.parametrize("family", ["bert", "xlmr", "modernbert", "mt5", "nllb"])
def test_it_learns_what_a_word_tells(loaded, family):
    model, encoder = loaded(family)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    outcome = trained((model, encoder))
    english = outcome.predictions[:10]
    assert [row["prediction"] for row in english] == [example.label for example in ROWS["en"]]
    assert [row["language"] for row in outcome.predictions] == 10 * ["en"] + ["si"]
    assert outcome.figures["lr"] == 3e-3
    assert outcome.figures["validation_loss"] < 0.1
    assert outcome.figures["steps"] == 30
    # The encoder that it was given stays as it was: frozen, in evaluation, the same weights.
    after = encoder.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not encoder.training
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_same_seed_gives_the_same(loaded):
    first, again, other = (trained(loaded("bert"), seed=seed) for seed in (1, 1, 2))
    assert first.figures == again.figures
    assert first.predictions == again.predictions
    assert other.figures["validation_loss"] != first.figures["validation_loss"]


@pytest.fixture
def saved_at_each_step(monkeypatch):
    monkeypatch.setattr(finetune_checkpoints, "SECONDS_BETWEEN", 0.0)


@pytest.fixture
def stopped(loaded, monkeypatch):
    """`stopped(folder, after=8)`: a call that is stopped after so many steps of all its runs."""

    def stop(folder, *, after, family="bert"):
        with monkeypatch.context() as patch:
            stop_finetuning(patch, after=after)
            with pytest.raises(KeyboardInterrupt):
                trained(loaded(family), folder=folder)

    return stop


# In the first run; just after its first validation; in the second run.
@pytest.mark.parametrize("after", [4, 10, 36])
@pytest.mark.usefixtures("saved_at_each_step")
def test_resumed_is_bit_by_bit_uninterrupted(loaded, tmp_path, stopped, monkeypatch, after):
    expected = trained(loaded("bert"))
    stopped(tmp_path, after=after)
    begun = stop_finetuning(monkeypatch, after=None)
    assert trained(loaded("bert"), folder=tmp_path) == expected
    assert len(begun) == 60 - after  # none of them again
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.usefixtures("saved_at_each_step")
def test_weights_of_two_names_are_resumed_too(loaded, tmp_path, stopped):
    expected = trained(loaded("mt5"))
    stopped(tmp_path, after=7, family="mt5")
    assert trained(loaded("mt5"), folder=tmp_path) == expected


@pytest.mark.parametrize(
    ("damaged", "resumed_from"),
    [("best/model.safetensors", 0), ("1e-05/checkpoint-14/optimizer.pt", 13)],
)
@pytest.mark.usefixtures("saved_at_each_step")
def test_what_is_damaged_is_not_resumed_from(
    loaded, tmp_path, stopped, monkeypatch, damaged, resumed_from
):
    expected = trained(loaded("bert"))
    stopped(tmp_path, after=14)
    (tmp_path / damaged).write_bytes(b"nothing")
    begun = stop_finetuning(monkeypatch, after=None)
    assert trained(loaded("bert"), folder=tmp_path) == expected
    assert begun[0] == resumed_from


def test_a_checkpoint_is_written_now_and_then(tmp_path, stopped):
    stopped(tmp_path, after=14)
    assert not list(tmp_path.rglob("checkpoint-*"))  # these steps take no five minutes


def test_all_of_the_encoder_is_trained(loaded):
    _, encoder = loaded("bert")
    classifier = build_classifier(encoder, 2, seed=0)
    assert all(weight.requires_grad for weight in classifier.parameters())
    assert all(weight.dtype == torch.float32 for weight in classifier.parameters())
    copied = dict(classifier.base_model.named_parameters())
    for name, weight in encoder.named_parameters():
        assert torch.equal(copied[name], weight)
        assert copied[name].data_ptr() != weight.data_ptr()


def test_an_encoder_in_half_precision_is_trained_in_full(base_folder):
    encoder = load_encoder(str(base_folder("mt5")), dtype=torch.bfloat16)
    classifier = build_classifier(encoder, 2, seed=0)
    assert isinstance(classifier, MeanPoolClassifier)
    assert {weight.dtype for weight in classifier.parameters()} == {torch.float32}
    assert {weight.dtype for weight in encoder.parameters()} == {torch.bfloat16}


def test_the_mean_is_over_the_text_without_its_padding(loaded):
    _, encoder = loaded("mt5")
    classifier = MeanPoolClassifier(encoder, 2).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    padded = classifier(ids, mask).logits
    alone = classifier(ids[:, :3], mask[:, :3]).logits
    assert torch.allclose(padded, alone, atol=1e-5)
    states = encoder(input_ids=ids[:, :3], attention_mask=mask[:, :3]).last_hidden_state
    expected = states.mean(1) @ classifier.head.weight.T + classifier.head.bias
    assert torch.allclose(alone, expected, atol=1e-5)
    loss = classifier(ids, mask, torch.tensor([1])).loss
    assert torch.isclose(loss, nn.functional.cross_entropy(padded, torch.tensor([1])))


def test_texts_are_cut_and_joined_as_the_bridge_reads_them(loaded):
    model, encoder = loaded("bert")
    task = get_task("xnli")
    pair = {"premise": "the man sleeps", "hypothesis": "the man is awake " * 20}
    tokens = LabelledTokens(encoder, model, task)
    (row,) = tokens.of([Example(0, pair, "neutral")], "en")
    text = f"Premise: {pair['premise']} Hypothesis: {pair['hypothesis']}"
    whole = tokens.tokenizer(text)["input_ids"]
    assert len(row["input_ids"]) == 24
    assert row["input_ids"][:-1] == whole[:23]
    assert row["labels"] == 1


def test_a_language_that_the_tokenizer_does_not_have(loaded):
    model, encoder = loaded("nllb")
    tokens = LabelledTokens(encoder, model, TASK)
    assert "no language 'sw'" in refusal(tokens.of, ROWS["en"], "sw")
    sinhala, english = (tokens.of(ROWS["si"], code)[0]["input_ids"] for code in ("si", "en"))
    assert sinhala != english


def test_what_cannot_be_fine_tuned_is_one_line(loaded, monkeypatch):
    model, encoder = loaded("bert")
    numbers = replace(TASK, labels={}, number=True)
    line = refusal(trained, (model, encoder), task=numbers)
    assert line == "fine-tuning gives a label, and animals has none"
    monkeypatch.setattr(finetune_checkpoints.BestWeights, "on_evaluate", lambda *_, **__: None)
    assert "not finite" in refusal(trained, (model, encoder))
    encoder.is_quantized = True
    assert "give no load_in" in refusal(trained, (model, encoder))
