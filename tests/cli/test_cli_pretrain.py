"""`palam pretrain`: a general bridge from raw text, by a recipe whose settings can be changed."""

import pytest
import yaml

from palam import PalamModel
from palam.training.pretraining import PRETRAIN_OPTIM, VALIDATION_LINES

LINES = [
    "The dog jumps over the lazy fox.",
    "I am going home today with my mother.",
    "She bought fish and rice at the market.",
    "The team won the last game of the year.",
]


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    lines = [f"{line} {number}" for number in range(8) for line in LINES]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pretraining(english, base_options, tmp_path):
    return ("pretrain", "--text-file", english, "--out", tmp_path / "general", *base_options)


def test_a_general_bridge(palam, pretraining, tmp_path):
    result = palam(*pretraining, "--max-steps", 2, "--batch-size", 4)
    assert (result.code, result.out) == (0, ""), result.err
    folder = tmp_path / "general"
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert settings["objectives"] == {"repeat": 1.0}
    assert settings["swap_words"] == PRETRAIN_OPTIM.swap_words > 0
    assert settings["batch_size"] == 4
    assert settings["max_eval_samples"] == VALIDATION_LINES
    model = PalamModel.from_pretrained(folder)
    assert model.config.task is None
    assert model.processor.template.suffix == "\nThe same in English:"
    assert f"next: palam generate {folder} " in result.err
    text = ("--text", "The dog goes home.", "--device", "cpu", "--max-new-tokens", 2)
    assert palam("generate", folder, *text).code == 0
    tuned = tmp_path / "tuned"
    task = ("--task", "demo", "--max-steps", 1, "--batch-size", 4, "--max-train-samples", 14)
    start = ("--init-from", folder, "--out", tuned)
    assert palam("train", *task, *start, *pretraining[5:]).code == 0


def test_labels_of_tasks_are_learned_beside_the_text(palam, pretraining, data, tmp_path):
    mix = ("--objectives.repeat", 1, "--objectives.label", 2, "--label-tasks", "sib200")
    steps = ("--max-steps", 2, "--batch-size", 4)
    result = palam(*pretraining, *steps, *mix, "--data", data)
    assert (result.code, result.out) == (0, ""), result.err
    settings = yaml.safe_load((tmp_path / "general" / "settings.yaml").read_text())
    assert settings["label_tasks"] == ["sib200"]
    assert settings["objectives"] == {"repeat": 1.0, "label": 2.0}
    result = palam(*pretraining, *steps, "--objectives.label", 2, "--label-tasks", "nothing")
    assert result.code == 2
    assert "nothing" in result.err


def test_soft_labels_are_learned_beside_the_text(palam, pretraining, tmp_path):
    topics = tmp_path / "topics.jsonl"
    topics.write_text('{"text": "The team won.", "scores": {"sports": -0.1, "travel": -2.5}}\n')
    mix = ("--objectives.repeat", 1, "--objectives.label", 1, "--soft-label-file", topics)
    result = palam(*pretraining, "--max-steps", 2, "--batch-size", 4, *mix)
    assert (result.code, result.out) == (0, ""), result.err
    topics.write_text('{"text": "The team won.", "label": "sports"}\n')
    result = palam(*pretraining, "--max-steps", 2, "--batch-size", 4, *mix)
    assert result.code == 2
    assert 'topics.jsonl, line 1: there is no "scores"' in result.err


def test_what_it_will_need_is_told_before(palam, pretraining, tmp_path):
    result = palam(*pretraining, "--dry-run", "--batch-size", 8, "--epochs", 2)
    assert result.code == 0, result.err
    lines = dict(line.split(maxsplit=2)[:2] for line in result.out.splitlines())
    steps = next(line for line in result.out.splitlines() if line.startswith("all steps"))
    assert steps.split()[2] == "8:"  # twice 31 rows in batches of 8
    assert "trained" in lines
    assert not (tmp_path / "general").exists()
    result = palam(*pretraining, "--dry-run", "--batch-size", 8, "--max-steps", 3)
    assert next(x for x in result.out.splitlines() if x.startswith("all steps")).split()[2] == "3:"


def test_the_text_is_needed(palam, tmp_path):
    result = palam("pretrain", "--out", tmp_path / "general")
    assert result.code == 2
    assert "--text-file is missing" in result.err
    result = palam("pretrain", "--text-file", tmp_path / "none.txt", "--out", tmp_path / "general")
    assert result.code == 2
    assert "none.txt" in result.err
    assert result.err.count("\n") == 1
