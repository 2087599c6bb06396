"""The model card: valid front matter, the run's own numbers, code that runs, nothing of this machine."""

import re

import pytest
import yaml

from palam.models.model_card import model_card, on_hub, public_name
from palam.training.config import TrainConfig
from palam.utils.templating import render

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
    made = tiny_model(mode="chat", prompt="Read: {text}\nTopic?", max_length=64)
    made.config.task = TASK
    return made


def test_settings_and_results_are_in_it(model):
    settings = TrainConfig(task="sib200", lr=0.00123, seed=7)
    card = model_card(
        model,
        settings,
        {"validation_accuracy": 0.81234567, "rows": 701, "x": {"y": 1}, "best": None},
    )
    assert "| validation accuracy | 0.8123 |" in card
    assert "| rows | 701 |" in card
    assert "| x |" not in card
    assert "| best |" not in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["lr"] == 0.00123
    assert "English text alone" in card
    assert f"{sum(p.numel() for p in model.bridge.parameters()):,} parameters" in card
    assert "global_softmax" in card
    assert "64 encoder tokens" in card


def test_a_claim_about_training_needs_a_training(model):
    assert "trained on English" not in model_card(model)
    assert "trained on English" not in model_card(model, TrainConfig(task="sib200", language="si"))
    assert "trained on English" in model_card(
        model, TrainConfig(task="sib200", language="eng_Latn")
    )


def test_front_matter_names_hub_models_alone(model, base_folder):
    assert front_matter(model_card(model)) == {
        "library_name": "palam",
        "tags": ["palam", "multilingual", "zero-shot"],
    }
    model.config.encoder, model.config.llm = "starter:encoder", "google/mt5-large"
    card = model_card(model)
    assert front_matter(card)["base_model"] == [
        "intfloat/multilingual-e5-small",
        "google/mt5-large",
    ]
    assert "# A Palam bridge: intfloat/multilingual-e5-small → google/mt5-large" in card


def test_public_names(base_folder, tmp_path):
    assert (public_name("starter:llm"), on_hub("starter:llm")) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        True,
    )
    assert (public_name("gpt2"), on_hub("gpt2")) == ("gpt2", True)
    assert (public_name(str(base_folder("bert"))), on_hub(str(base_folder("bert")))) == (
        "bert",
        False,
    )
    (tmp_path / "starter.json").write_text('{"origin": "lab/model"}')
    assert (public_name(str(tmp_path)), on_hub(str(tmp_path))) == ("lab/model", True)
    assert not on_hub("/gone/folder")


def test_nothing_of_this_machine(model, base_folder):
    assert str(base_folder("bert").parent) not in model_card(model)


def test_tables_hold_whatever_the_template_holds(model):
    card = model_card(model)
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


def test_html_is_escaped_and_markdown_is_not(monkeypatch):
    from jinja2 import DictLoader

    from palam.models import model_card as card

    monkeypatch.setattr(
        card, "PackageLoader", lambda *_: DictLoader({"a.html.j2": "{{ x }}", "a.md.j2": "{{ x }}"})
    )
    assert render("a.html.j2", x="<b>") == "&lt;b&gt;"
    assert render("a.md.j2", x="<b>") == "<b>"
