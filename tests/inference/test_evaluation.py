"""Accuracy: any task of the family, under the task's own codes, with Wilson intervals."""

import json
from importlib import import_module

import pytest

from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference.evaluation import load_languages, predict, wilson
from palam.inference.scoring import score_labels
from palam.tasks.registry import get_task
from palam.tasks.task import Example

# statsmodels' proportion_confint(correct, n, method="wilson")
WILSON = {
    (0, 10): (0.0, 0.277533),
    (1, 10): (0.017876, 0.404150),
    (5, 10): (0.236593, 0.763407),
    (10, 10): (0.722467, 1.0),
    (50, 100): (0.403832, 0.596168),
    (0, 0): (0.0, 1.0),
}


@pytest.mark.parametrize("counts", WILSON)
def test_wilson(counts):
    assert wilson(*counts) == pytest.approx(WILSON[counts], abs=1e-6)


@pytest.fixture
def data_folder(tmp_path):
    """XNLI in English and Swahili, the same twelve pairs, sorted by label."""
    (tmp_path / "xnli").mkdir()
    for language, word in (("en", "sleeps"), ("sw", "analala")):
        rows = [
            {"premise": f"{i} {word}", "hypothesis": f"{word} {i}" * (1 + i % 3), "label": label}
            for i, label in enumerate(
                label for label in ("entailment", "neutral", "contradiction") for _ in range(4)
            )
        ]
        (tmp_path / "xnli" / f"dev.{language}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    return tmp_path


def trained_on(model, name):
    task = get_task(name)
    model.config.task = {"name": task.name, "family": task.family, "labels": [], "text": task.text}
    return model


def test_any_task_of_the_family_in_the_form_that_scripts_read(tiny_model, data_folder):
    task = get_task("xnli")
    rows = load_languages(task, "validation", ["eng_Latn", "sw", "en"], data_dir=data_folder)
    assert list(rows) == ["en", "sw"]
    model = trained_on(tiny_model(mode="prompt", prompt=task.prompt), "lingnli")
    evaluation = evaluate(model, task, "dev", rows, name="mine", batch_size=5)
    expected = {}
    for code, examples in rows.items():
        texts = [
            f"Premise: {e.fields['premise']} Hypothesis: {e.fields['hypothesis']}" for e in examples
        ]
        best = score_labels(
            model, texts, ["Entailment", "Neutral", "Contradiction"], [code] * 12
        ).argmax(1)
        right = sum(
            ["entailment", "neutral", "contradiction"][i] == e.label
            for i, e in zip(best, examples, strict=True)
        )
        expected[code] = {"n": 12, "accuracy": right / 12, "ci95": list(wilson(right, 12))}
    found = json.loads(json.dumps(evaluation.to_dict()))
    assert found == {
        "task": "xnli", "split": "dev", "model": "mine", "results": expected,
        "macro": (expected["en"]["accuracy"] + expected["sw"]["accuracy"]) / 2,
    }  # fmt: skip
    assert [(one["language"], one["row"]) for one in evaluation.predictions] == [
        (code, row) for code in ("en", "sw") for row in range(12)
    ]
    right = [one["prediction"] == one["label"] for one in evaluation.predictions]
    assert evaluation.correct == {"en": right[:12], "sw": right[12:]}


def test_macro_is_the_plain_mean_of_languages_of_different_size(tiny_model):
    task, model = get_task("sib200"), tiny_model()
    texts = [Example(i, {"text": f"book {i}"}, "sports") for i in range(6)]
    said = [one["prediction"] for one in predict(model, task, texts, None)]
    examples = [
        Example(e.row, e.fields, label) for e, label in zip(texts, said, strict=True)
    ]  # all right
    wrong = "health" if said[0] != "health" else "travel"
    evaluation = evaluate(
        model, task, "dev", {"a": examples, "b": [Example(0, texts[0].fields, wrong)]}
    )
    assert (evaluation.accuracy("a"), evaluation.accuracy("b"), evaluation.macro) == (1.0, 0.0, 0.5)


def test_a_task_of_another_family_is_refused(tiny_model):
    model = trained_on(tiny_model(), "sib200")
    message = r"this bridge was trained for topic \(sib200\); xnli is nli"
    with pytest.raises(PalamError, match=message):
        evaluate(model, get_task("xnli"), "dev", {"en": []})


def test_a_language_that_is_not_there_is_refused_before_any_is_read(data_folder):
    with pytest.raises(PalamError, match="tam_Taml"):
        load_languages(get_task("xnli"), "dev", ["en", "tam_Taml"], data_dir=data_folder)


def test_a_limit_takes_the_same_stratified_rows_of_parallel_languages(data_folder):
    rows = load_languages(
        get_task("xnli"), "dev", ["en", "sw"], data_dir=data_folder, limit=6, seed=3
    )
    assert [e.row for e in rows["en"]] == [e.row for e in rows["sw"]]
    assert sorted(e.label for e in rows["en"]) == sorted(
        ["entailment", "neutral", "contradiction"] * 2
    )


def test_generated_answers_must_match_exactly(tiny_model, monkeypatch):
    said = {
        "one": "science",
        "two": "Science",
        "three": "science fiction",
        "four": "sports",
        "five": "",
    }
    asked = {}

    def generate(model, texts, languages, **options):
        asked.update(options, languages=languages)
        return [said[text.split()[1]] for text in texts]

    monkeypatch.setattr(import_module("palam.inference.evaluation"), "generate", generate)
    task, model = get_task("sib200"), tiny_model()
    examples = [Example(i, {"text": text}, "science/technology") for i, text in enumerate(said)]
    found = predict(model, task, examples, "en", method="generate", llm_only=True, batch_size=3)
    assert [one["prediction"] for one in found] == [
        "science/technology",
        None,
        None,
        "sports",
        None,
    ]
    assert [one["answer"] for one in found] == list(said.values())
    longest = max(len(model.processor.answer_ids(words)) for words in task.labels.values())
    assert (asked["max_new_tokens"], asked["direct"], asked["batch_size"]) == (longest, True, 3)
    assert asked["languages"] == ["en"] * 5


def test_generation_runs_and_an_unknown_method_does_not(tiny_model):
    task, model = get_task("sib200"), tiny_model()
    examples = [Example(7, {"text": "a book"}, "sports")]
    (found,) = predict(model, task, examples, None, method="generate")
    assert set(found) == {"row", "label", "prediction", "answer"}
    assert found["row"] == 7
    with pytest.raises(PalamError, match="method is 'vote'; it must be one of: score, generate"):
        predict(model, task, examples, None, method="vote")


def test_of_a_worked_out_answer_its_number_counts(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "mgsm").mkdir()
    rows = [
        {"question": f"How many are {n}?", "answer": answer}
        for n, answer in enumerate(("18", "3,000", "7"))
    ]
    (tmp_path / "mgsm" / "test.sw.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
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

    monkeypatch.setattr(import_module("palam.inference.evaluation"), "generate", generate)
    found = evaluate(tiny_model(mode="prompt", prompt=task.prompt), task, "test", examples)
    assert asked == [([row["question"] for row in rows], 256)]
    assert found.correct == {"sw": [True, True, False]}
    assert [one["prediction"] for one in found.predictions] == ["18", "3000", None]
