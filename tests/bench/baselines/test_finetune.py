"""The fine-tuned encoder: it learns, it is a copy, and the same seed gives the same."""

from dataclasses import replace

import pytest
import torch
from helpers import refusal
from torch import nn

from palam.bench.baselines import finetune as finetuning
from palam.bench.baselines.finetune import (
    LabelledTokens,
    MeanPoolClassifier,
    build_classifier,
    finetune,
)
from palam.models.backbones.encoder import load_encoder
from palam.models.model_config import ModelConfig
from palam.tasks.registry import get_task
from palam.tasks.task import Example, Task
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


def trained(loaded_encoder, seed=0, **options):
    model, encoder = loaded_encoder
    return finetune(model, encoder, DATA, TASK, ROWS, seed=seed, rates=RATES, epochs=3, **options)


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
    line = refusal(finetune, model, encoder, DATA, numbers, ROWS, seed=0, rates=RATES, epochs=3)
    assert line == "fine-tuning gives a label, and animals has none"
    monkeypatch.setattr(finetuning.KeepBest, "on_evaluate", lambda *_, **__: None)
    assert "not finite" in refusal(trained, (model, encoder))
    encoder.is_quantized = True
    assert "give no load_in" in refusal(trained, (model, encoder))
