"""`palam evaluate`: what it writes, and that all ways of asking agree."""

import csv
import json
from collections import Counter

import pytest

from palam.inference.evaluation import wilson
from palam.tasks.registry import get_task

LABELS = list(get_task("sib200").labels)
CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def evaluation(trained, data):
    """The command that measures the trained bridge on its task."""
    return ("evaluate", trained, "--task", "sib200", "--data", data, *CPU)


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_writes_the_agreed_json(palam, evaluation, trained, tmp_path):
    json_file = tmp_path / "new" / "results.json"
    predictions_file = tmp_path / "predictions.jsonl"
    files = ("--json", json_file, "--predictions", predictions_file)
    result = palam(*evaluation, "--languages", "si,en", *files)
    assert (result.code, result.err) == (0, "")
    content = json.loads(json_file.read_text())
    assert list(content) == ["task", "split", "model", "results", "macro", "macro_f1"]
    assert (content["task"], content["split"], content["model"]) == ("sib200", "dev", str(trained))
    # Native codes, in the order asked for.
    assert list(content["results"]) == ["sin_Sinh", "eng_Latn"]
    predictions = read_rows(predictions_file)
    assert len(predictions) == 42
    for code, values in content["results"].items():
        rows = [row for row in predictions if row["language"] == code]
        num_right = sum(row["prediction"] == row["label"] for row in rows)
        figures = ["n", "accuracy", "ci95", "macro_f1", "by_label", "confusion"]
        assert list(values) == figures
        assert (values["n"], values["accuracy"]) == (21, num_right / 21)
        assert values["ci95"] == list(wilson(num_right, 21))
        assert f"{values['accuracy']:.1%}" in result.out
    accuracies = [values["accuracy"] for values in content["results"].values()]
    assert content["macro"] == pytest.approx(sum(accuracies) / 2)


def test_without_languages_it_reads_all_there_are(palam, evaluation):
    result = palam(*evaluation)
    assert "English (eng_Latn)" in result.out
    assert "Sinhala (sin_Sinh)" in result.out
    assert "mean of 2" in result.out


def test_a_limit_is_stratified_by_label_seeded_and_the_same_rows_in_every_language(
    palam, evaluation, tmp_path
):
    def drawn(seed):
        path = tmp_path / "predictions.jsonl"
        options = ("--predictions", path, "--limit", 7, "--seed", seed)
        assert palam(*evaluation, *options).code == 0
        return read_rows(path)

    rows = drawn(1)
    english = [row["row"] for row in rows if row["language"] == "eng_Latn"]
    sinhala = [row["row"] for row in rows if row["language"] == "sin_Sinh"]
    assert english == sinhala
    assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, 2)
    assert drawn(1) == rows
    assert [row["row"] for row in drawn(2)] != [row["row"] for row in rows]


def test_by_generation_and_by_the_llm_alone(palam, evaluation, tmp_path):
    english = (*evaluation, "--languages", "en")
    generated = tmp_path / "generated.jsonl"
    assert palam(*english, "--method", "generate", "--predictions", generated).code == 0
    assert all("answer" in row for row in read_rows(generated))
    for name, options in {"bridge": (), "llm": ("--llm-only",)}.items():
        assert palam(*english, *options, "--predictions", tmp_path / name).code == 0
    assert (tmp_path / "bridge").read_text() != (tmp_path / "llm").read_text()


def test_a_labelled_file_is_measured_like_a_task(palam, evaluation, trained, data, tmp_path):
    rows = read_rows(data / "sib200" / "dev.sin_Sinh.jsonl")
    with (tmp_path / "own.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sentence", "topic"])
        table.writerows([row["text"], row["label"]] for row in rows)
    columns = ("--text-column", "sentence", "--label-column", "topic")
    own = ("evaluate", trained, "--file", tmp_path / "own.csv", *columns, *CPU)
    of_file = ("--languages", "sin_Sinh", "--predictions", tmp_path / "own.jsonl")
    of_task = ("--languages", "si", "--predictions", tmp_path / "task.jsonl")
    assert palam(*own, *of_file).code == 0
    assert palam(*evaluation, *of_task).code == 0
    assert (tmp_path / "own.jsonl").read_text() == (tmp_path / "task.jsonl").read_text()
    refused = palam(*own)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--languages si" in refused.err
    message = palam("evaluate", trained, *CPU).err
    assert message == "palam: error: give either --task or --file\n"


def test_cut_texts_and_unknown_tokens_are_told(palam, data, base_options, tmp_path):
    task = ("--task", "sib200", "--data", data)
    short = ("--batch-size", 4, "--max-steps", 1, "--max-length", 8)
    assert palam("train", *task, *short, "--out", tmp_path / "short", *base_options).code == 0
    result = palam("evaluate", tmp_path / "short", *task, "--languages", "si", *CPU)
    (row,) = [line for line in result.out.splitlines() if "sin_Sinh" in line]
    num_cut = int(row.split("│")[6])
    assert 7 <= num_cut <= 21
    assert "cut: at 8 tokens" in result.out


def test_settings_from_yaml(palam, trained, data, tmp_path):
    config = tmp_path / "evaluate.yaml"
    json_file = tmp_path / "results.json"
    config.write_text(f"task: sib200\ndata: {data}\nlanguages: [si]\njson: {json_file}\n")
    assert palam("evaluate", trained, "--config", config, *CPU).code == 0
    assert list(json.loads(json_file.read_text())["results"]) == ["sin_Sinh"]
