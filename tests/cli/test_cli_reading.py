"""`palam evaluate --task reading` and `--task questions`."""

import json
import re
import shutil

import pytest

CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def reading(untrained, data):
    """The command that measures what gets across a bridge that was trained for no task."""
    return ("evaluate", untrained, "--task", "reading", "--data", data, *CPU)


def test_readings_are_shown_and_written_with_every_answer(palam, reading, tmp_path):
    json_file, page = tmp_path / "results.json", tmp_path / "page.html"
    files = ("--json", json_file, "--html", page)
    result = palam(*reading, "--languages", "si,en", "--limit", 5, *files)
    assert (result.code, result.err) == (0, "")
    content = json.loads(json_file.read_text())
    assert list(content["results"]) == ["sin_Sinh", "eng_Latn"]
    assert len(content["answers"]) == 10
    sinhala, english = content["results"].values()
    assert f"{sinhala['recall']:.1%}" in result.out
    assert f"{sinhala['chrf']:.1f}" in result.out
    # All English words stand in the text itself, so that none of them shows that it was read.
    assert list(english) == ["n", "chrf", "identified"]
    assert content["macro"] == sinhala["recall"]
    assert "mean of 2" in result.out
    assert "recall by language" in page.read_text()


def test_groups_of_languages_have_means(palam, untrained, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    shutil.copy(folder / "sib200" / "dev.sin_Sinh.jsonl", folder / "sib200" / "dev.fra_Latn.jsonl")
    json_file = tmp_path / "results.json"
    command = ("evaluate", untrained, "--task", "reading", "--data", folder, *CPU)
    result = palam(*command, "--limit", 3, "--json", json_file)
    assert (result.code, result.err) == (0, "")
    content = json.loads(json_file.read_text())
    french, sinhala = (content["results"][code]["recall"] for code in ("fra_Latn", "sin_Sinh"))
    assert content["groups"]["mean, Latin script (1)"]["recall"] == french
    assert content["groups"]["mean, other scripts (1)"]["recall"] == sinhala
    assert "mean, Latin script (1)" in result.out


def test_references_and_likelihood_stand_in_the_same_table(palam, reading, tmp_path):
    json_file = tmp_path / "results.json"
    options = ("--languages", "si", "--limit", 4, "--references", "--likelihood")
    result = palam(*reading, *options, "--json", json_file)
    assert (result.code, result.err) == (0, "")
    references = json.loads(json_file.read_text())["references"]
    names = [
        "the text, copied",
        "an unrelated sentence",
        "answers to other texts",
        "the LLM alone",
        "nearest for the encoder",
    ]
    assert list(references) == names
    for name in names:
        assert re.search(rf"^│ +{name} ", result.out, re.M)
    assert "likeliest" in json.loads(json_file.read_text())["results"]["sin_Sinh"]


def test_readings_are_recorded_with_the_bridge(palam, untrained, data, tmp_path):
    bridge = shutil.copytree(untrained, tmp_path / "bridge")
    command = ("evaluate", bridge, "--task", "reading", "--data", data, *CPU)
    assert palam(*command, "--languages", "si", "--limit", 3, "--record").code == 0
    (record,) = json.loads((bridge / "results.json").read_text())["evaluations"]
    assert record["measure"] == "content-word recall"
    assert len(record["answers"]) == 3
    assert "reading (content-word recall)" in (bridge / "README.md").read_text(encoding="utf-8")


def test_questions_have_an_accuracy(palam, untrained):
    command = ("evaluate", untrained, "--task", "questions", "--languages", "si", *CPU)
    result = palam(*command, "--limit", 3, "--no-repeat-ngram-size", 3)
    assert (result.code, result.err) == (0, "")
    assert "accuracy" in result.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--references",), "--references needs the task reading"),
        (("--likelihood",), "--likelihood needs the task reading"),
        (("--no-repeat-ngram-size", "2"), "needs a task without labels"),
    ],
)
def test_options_of_other_tasks_are_refused(refused, untrained, data, options, message):
    task = ("--task", "sib200", "--data", data, "--languages", "si", *CPU)
    assert message in refused("evaluate", untrained, *task, *options)


def test_a_bridge_of_another_family_is_refused(refused, trained, data):
    task = ("--task", "reading", "--data", data, "--languages", "si", *CPU)
    message = refused("evaluate", trained, *task)
    assert message == "this bridge was trained for topic (sib200); reading is reading"


def test_a_bridge_can_be_trained_to_read(palam, data, base_options, tmp_path):
    task = ("--task", "reading", "--data", data)
    options = ("--max-steps", 1, "--batch-size", 4, "--out", tmp_path / "bridge", *base_options)
    result = palam("train", *task, *options)
    assert result.code == 0, result.err
    result = palam("evaluate", tmp_path / "bridge", *task, "--languages", "si", "--limit", 3, *CPU)
    assert (result.code, result.err) == (0, "")


def test_a_recipe_compares_right_answers_alone(refused, results, tmp_path):
    recipe = (results / "recipe.yaml", "--set", "train.task=reading", "--set", "read.task=reading")
    message = refused("bench", *recipe, "--out", tmp_path / "out")
    assert message.startswith("a recipe compares right answers, and reading has none")
