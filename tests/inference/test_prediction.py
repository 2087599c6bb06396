"""Predictions: by score, by what is generated, and by the number that an answer ends in."""

import dataclasses
import json

import pytest

from palam.errors import PalamError
from palam.inference.evaluation import evaluate, load_languages
from palam.inference.prediction import predict
from palam.tasks.registry import get_task
from palam.tasks.task import Example


def test_generated_answers_must_match_exactly(tiny_model, monkeypatch):
    answers = {
        "one": "science",
        "two": "Science",
        "three": "science fiction",
        "four": "sports",
        "five": "",
    }
    asked = {}

    def generate(model, texts, languages, **options):
        asked.update(options, languages=languages)
        return [answers[text.split()[1]] for text in texts]

    monkeypatch.setattr("palam.inference.prediction.generate", generate)
    task, model = get_task("sib200"), tiny_model()
    label = "science/technology"
    examples = [Example(i, {"text": text}, label) for i, text in enumerate(answers)]
    rows = predict(model, task, examples, "en", method="generate", llm_only=True, batch_size=3)
    assert [row["prediction"] for row in rows] == [label, None, None, "sports", None]
    assert [row["answer"] for row in rows] == list(answers.values())
    longest = max(len(model.processor.answer_ids(words)) for words in task.labels.values())
    assert (asked["max_new_tokens"], asked["llm_only"], asked["batch_size"]) == (longest, True, 3)
    assert asked["languages"] == ["en"] * 5


def test_generation_runs_and_an_unknown_method_does_not(tiny_model):
    task, model = get_task("sib200"), tiny_model()
    examples = [Example(7, {"text": "a book"}, "sports")]
    (row,) = predict(model, task, examples, None, method="generate")
    assert set(row) == {"row", "label", "prediction", "answer"}
    assert row["row"] == 7
    with pytest.raises(PalamError, match="method is 'vote'; it must be one of: score, generate"):
        predict(model, task, examples, None, method="vote")


def test_of_a_worked_out_answer_its_number_counts(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "mgsm").mkdir()
    questions = [f"How many are {n}?" for n in range(3)]
    numbers = ["18", "3,000", "7"]
    lines = []
    for question, number in zip(questions, numbers, strict=True):
        lines.append(json.dumps({"question": question, "answer": number}) + "\n")
    (tmp_path / "mgsm" / "test.sw.jsonl").write_text("".join(lines))
    task = get_task("mgsm")
    examples = load_languages(task, "test", ["sw"], data_dir=tmp_path)
    asked = []

    def generate(model, texts, languages, **options):
        asked.append((list(texts), options["max_new_tokens"]))
        return [
            "9 + 9 = 18\n#### 18 eggs",
            "It is 3000.0, as 2 is not.\n#### 3000.0",
            "I do not know",
        ]

    monkeypatch.setattr("palam.inference.prediction.generate", generate)
    model = tiny_model(mode="prompt", prompt=task.prompt)
    evaluation = evaluate(model, task, "test", examples)
    assert asked == [(questions, 256)]
    assert evaluation.correct == {"sw": [True, True, False]}
    assert [row["prediction"] for row in evaluation.predictions] == ["18", "3000", None]


def test_generated_answers_are_compared_in_their_composed_form(tiny_model, monkeypatch):
    in_parts = "cafe\u0301"
    composed = "caf\u00e9"
    task = dataclasses.replace(
        get_task("sib200"), labels={"place": in_parts, "thing": "object"}, name="own"
    )

    def generate(model, texts, languages, **options):
        return [composed, in_parts, "object"]

    monkeypatch.setattr("palam.inference.prediction.generate", generate)
    examples = [Example(row, {"text": "x"}, "place") for row in range(3)]
    rows = predict(tiny_model(), task, examples, None, method="generate")
    assert [row["prediction"] for row in rows] == ["place", "place", "thing"]
