"""Accuracy: any task of the family, under the task's own codes, with Wilson intervals."""

import json

import pytest

from palam.errors import PalamError
from palam.inference.evaluation import evaluate, load_languages, wilson
from palam.inference.label_reading import LabelReading
from palam.inference.prediction import predict
from palam.inference.scoring import LabelScorer, score_labels
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
    labels = ["entailment"] * 4 + ["neutral"] * 4 + ["contradiction"] * 4
    for language, word in (("en", "sleeps"), ("sw", "analala")):
        lines = []
        for i, label in enumerate(labels):
            hypothesis = f"{word} {i}" * (1 + i % 3)
            row = {"premise": f"{i} {word}", "hypothesis": hypothesis, "label": label}
            lines.append(json.dumps(row) + "\n")
        (tmp_path / "xnli" / f"dev.{language}.jsonl").write_text("".join(lines))
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
    labels = ["entailment", "neutral", "contradiction"]
    words = ["Entailment", "Neutral", "Contradiction"]
    expected = {}
    for code, examples in rows.items():
        fields = [example.fields for example in examples]
        texts = [f"Premise: {f['premise']} Hypothesis: {f['hypothesis']}" for f in fields]
        best = score_labels(model, texts, words, [code] * 12).argmax(1).tolist()
        right = 0
        for index, example in zip(best, examples, strict=True):
            right += labels[index] == example.label
        expected[code] = {"n": 12, "accuracy": right / 12, "ci95": list(wilson(right, 12))}
    assert json.loads(json.dumps(evaluation.to_dict())) == {
        "task": "xnli",
        "split": "dev",
        "model": "mine",
        "results": expected,
        "macro": (expected["en"]["accuracy"] + expected["sw"]["accuracy"]) / 2,
    }
    places = [(row["language"], row["row"]) for row in evaluation.predictions]
    assert places == [(code, row) for code in ("en", "sw") for row in range(12)]
    correct = [row["prediction"] == row["label"] for row in evaluation.predictions]
    assert evaluation.correct == {"en": correct[:12], "sw": correct[12:]}


def test_one_scorer_serves_all_languages_and_checks_packing_once(
    tiny_model, data_folder, monkeypatch
):
    task = get_task("xnli")
    rows = load_languages(task, "dev", ["en", "sw"], data_dir=data_folder)
    model = tiny_model(mode="prompt", prompt=task.prompt)
    scorers, checks = [], []
    score = LabelScorer.score
    check = LabelReading.score_sequentially

    def counted_score(scorer, *args, **kwargs):
        scorers.append(scorer)
        return score(scorer, *args, **kwargs)

    def counted_check(reading, *args):
        checks.append(reading)
        return check(reading, *args)

    monkeypatch.setattr(LabelScorer, "score", counted_score)
    monkeypatch.setattr(LabelReading, "score_sequentially", counted_check)
    evaluate(model, task, "dev", rows, batch_size=5)
    assert len(scorers) == 2
    assert scorers[0] is scorers[1]
    assert scorers[0].exactness.packing
    assert len(checks) == 1


def test_macro_is_the_plain_mean_of_languages_of_different_size(tiny_model):
    task, model = get_task("sib200"), tiny_model()
    examples = [Example(i, {"text": f"book {i}"}, "sports") for i in range(6)]
    predicted = [row["prediction"] for row in predict(model, task, examples, None)]
    all_right = [Example(i, {"text": f"book {i}"}, predicted[i]) for i in range(6)]
    wrong = "health" if predicted[0] != "health" else "travel"
    all_wrong = [Example(0, examples[0].fields, wrong)]
    evaluation = evaluate(model, task, "dev", {"a": all_right, "b": all_wrong})
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
    codes = ["en", "sw"]
    rows = load_languages(get_task("xnli"), "dev", codes, data_dir=data_folder, limit=6, seed=3)
    assert [example.row for example in rows["en"]] == [example.row for example in rows["sw"]]
    labels = sorted(example.label for example in rows["en"])
    assert labels == sorted(["entailment", "neutral", "contradiction"] * 2)
