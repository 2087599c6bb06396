"""The model card: valid front matter, the run's own numbers, code that runs, no local folder."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from palam.models.model_card import model_card, on_hub, public_name

TASK = {
    "name": "topics",
    "family": "topics",
    "text": "{text}",
    "labels": [["a", "sports"], ["b", "go|od news"]],
}


def front_matter(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def model(tiny_model):
    built = tiny_model(mode="chat", prompt="Read: {text}\nTopic?", max_length=64)
    built.config.task = TASK
    return built


def card_of(model, **options):
    return model_card(
        model.config,
        parameters=model.bridge.num_parameters(),
        template=model.processor.template,
        max_length=model.processor.max_length,
        **options,
    )


def test_settings_and_results_are_in_it(model):
    settings = yaml.safe_dump({"task": "sib200", "lr": 0.00123, "seed": 7}, sort_keys=False)
    results = {"validation_accuracy": 0.81234567, "rows": 701, "x": {"y": 1}, "best": None}
    card = card_of(model, english=True, settings=settings, results=results)
    assert "| validation accuracy | 0.8123 |" in card
    assert "| rows | 701 |" in card
    assert "| x |" not in card
    assert "| best |" not in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["lr"] == 0.00123
    assert "English text alone" in card
    assert f"{sum(p.numel() for p in model.bridge.parameters()):,} parameters" in card
    assert "global_softmax" in card
    assert "64 encoder tokens" in card


def test_the_hub_finds_the_accuracy(model):
    data = ModelCard(card_of(model, results={"validation_accuracy": 0.81234567})).data
    assert data.model_name == "bert → llama"
    (evaluation,) = data.eval_results
    assert evaluation.dataset_name == "topics"
    assert evaluation.dataset_split == "validation"
    assert evaluation.metric_type == "accuracy"
    assert evaluation.metric_value == 0.8123
    assert ModelCard(card_of(model, results={"rows": 701})).data.eval_results is None


def test_a_claim_about_training_needs_a_training(model):
    assert "trained on English" not in card_of(model)
    assert "## Training" not in card_of(model)
    assert "trained on English" not in card_of(model, settings="language: si\n")
    assert "trained on English" in card_of(model, settings="language: en\n", english=True)


def test_front_matter_names_hub_models_alone(model):
    assert front_matter(card_of(model)) == {
        "library_name": "palam",
        "pipeline_tag": "text-classification",
        "tags": ["palam", "multilingual", "zero-shot"],
    }
    model.config.encoder, model.config.llm = "starter:encoder", "google/mt5-large"
    card = card_of(model)
    assert front_matter(card)["base_model"] == [
        "intfloat/multilingual-e5-small",
        "google/mt5-large",
    ]
    assert front_matter(card)["base_model_relation"] == "adapter"
    assert "# A Palam bridge: intfloat/multilingual-e5-small → google/mt5-large" in card
    model.config.task = None
    assert front_matter(card_of(model))["pipeline_tag"] == "text-generation"


def test_public_names(base_folder, tmp_path):
    assert public_name("starter:llm") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert on_hub("starter:llm")
    assert public_name("gpt2") == "gpt2"
    assert on_hub("gpt2")
    assert public_name(str(base_folder("bert"))) == "bert"
    assert not on_hub(str(base_folder("bert")))
    (tmp_path / "starter.json").write_text('{"origin": "lab/model"}')
    assert public_name(str(tmp_path)) == "lab/model"
    assert on_hub(str(tmp_path))
    assert not on_hub("/gone/folder")
    assert public_name("/gone/folder") == "folder"
    assert public_name(r"C:\models\mt5") == "mt5"
    assert public_name("gone/models/mt5") == "mt5"
    cached = "/home/me/.cache/huggingface/hub/models--google--mt5-large/snapshots/0a1b"
    assert public_name(cached) == "google/mt5-large"
    assert on_hub(cached)


def test_nothing_of_this_machine(model, base_folder):
    folder = str(base_folder("bert"))
    settings = yaml.safe_dump({"encoder": folder, "llm": str(base_folder("llama")), "lr": 0.1})
    for card in (card_of(model), card_of(model, settings=settings)):
        assert str(base_folder("bert").parent) not in card
        assert str(base_folder("llama").parent) not in card
    assert "encoder: bert\n" in card_of(model, settings=settings)
    assert "encoder: starter:encoder\n" in card_of(model, settings="encoder: starter:encoder\n")


def test_paths_in_settings_lose_their_folders(model):
    settings = {"file": "/home/me/letters.csv", "cache_dir": "/tmp/states", "prompt": "/no {text}"}
    card = card_of(model, settings=yaml.safe_dump(settings))
    shown = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert shown == {"file": "letters.csv", "cache_dir": "states", "prompt": "/no {text}"}


def test_a_base_that_is_not_on_the_hub_is_to_be_given(model):
    card = card_of(model)
    assert "**bert**, was a local folder" in card
    assert 'encoder="..."' in card
    model.config.encoder = "starter:encoder"
    assert "**bert**" not in card_of(model)


def test_languages_of_training_and_results(model):
    record = {
        "task": "topics",
        "dataset": "lab/topics",
        "split": "test",
        "language": "sin_Sinh",
        "n": 204,
        "accuracy": 0.75,
        "ci95": [0.69, 0.8],
        "macro_f1": 0.7,
    }
    card = card_of(model, settings="lr: 0.1\n", results={"evaluations": [record]})
    assert front_matter(card)["language"] == ["en", "si"]
    assert "| topics | test | Sinhala (sin_Sinh) | 204 | 75.0 % | 69.0–80.0 | 70.0 % |" in card
    accuracy, f1 = ModelCard(card).data.eval_results
    assert (accuracy.dataset_type, accuracy.dataset_config) == ("lab/topics", "sin_Sinh")
    assert (accuracy.metric_value, f1.metric_value) == (0.75, 0.7)
    assert accuracy.metric_args == {"n": 204, "ci95": [0.69, 0.8]}


def test_tables_hold_whatever_the_template_holds(model):
    card = card_of(model)
    rows = [line for line in card.splitlines() if line.startswith("| template")]
    assert len(rows) == 1
    assert r"<\|user\|>" in rows[0]
    for line in card.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3


@pytest.mark.parametrize("task", [TASK, None])
def test_its_code_runs(model, task, tmp_path):
    model.config.task = task
    model.save_pretrained(tmp_path / "out")
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("path/or/id", str(tmp_path / "out")), names)
    if task:
        assert names["scores"].shape == (1, 2)
