"""`palam evaluate`: what it writes, and that all ways of asking agree."""

import csv
import json
import re
from collections import Counter

import pytest
from helpers import read_jsonl, write_jsonl

from palam.inference.evaluation import wilson
from palam.tasks.registry import get_task

LABELS = list(get_task("sib200").labels)
CPU = ("--device", "cpu", "--dtype", "fp32")


@pytest.fixture
def evaluation(trained, data):
    """The command that measures the trained bridge on its task."""
    return ("evaluate", trained, "--task", "sib200", "--data", data, *CPU)


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
    predictions = read_jsonl(predictions_file)
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
        return read_jsonl(path)

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
    assert all("answer" in row for row in read_jsonl(generated))
    for name, options in {"bridge": (), "llm": ("--llm-only",)}.items():
        assert palam(*english, *options, "--predictions", tmp_path / name).code == 0
    assert (tmp_path / "bridge").read_text() != (tmp_path / "llm").read_text()


def test_a_labelled_file_is_measured_like_a_task(palam, evaluation, trained, data, tmp_path):
    rows = read_jsonl(data / "sib200" / "dev.sin_Sinh.jsonl")
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
    refused = palam(*own, "--languages", "si,ta")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--languages si" in refused.err
    message = palam("evaluate", trained, *CPU).err
    assert message == "palam: error: give either --task or --file\n"


def test_numbers_for_the_labels_of_somebodys_file_are_refused(palam, base_options, tmp_path):
    """In whose order they would count, nobody can know."""
    rows = [{"text": f"text {number}", "label": ("pos", "neg")[number % 2]} for number in range(20)]
    write_jsonl(tmp_path / "own.jsonl", rows)
    bridge = tmp_path / "bridge"
    made = palam("train", "--file", tmp_path / "own.jsonl", "--out", bridge, *base_options)
    assert made.code == 0, made.err
    write_jsonl(tmp_path / "test.jsonl", [{"text": "text", "label": 1}])
    result = palam("evaluate", bridge, "--file", tmp_path / "test.jsonl", *CPU)
    assert result.code == 2
    assert "line 1: label '1' is none of pos, neg" in result.err


def test_a_file_of_no_language_is_one_group(palam, trained, data, tmp_path, jsonl):
    own = data / "sib200" / "dev.sin_Sinh.jsonl"
    command = ("evaluate", trained, "--file", own, "--predictions", tmp_path / "rows", *CPU)

    def rows():
        return [
            {name: value for name, value in row.items() if name != "language"}
            for row in jsonl((tmp_path / "rows").read_text())
        ]

    page, json_file = tmp_path / "page.html", tmp_path / "results.json"
    result = palam(*command, "--html", page, "--json", json_file)
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^│ all +│ +21 │", result.out, re.M)
    assert "<h2>all</h2>" in page.read_text()
    assert list(json.loads(json_file.read_text())["results"]) == ["all"]
    without = rows()
    assert palam(*command, "--languages", "si").code == 0
    assert rows() == without


def test_an_encoder_that_must_be_told_asks_for_the_language_of_a_file(
    palam, data, base_options, base_folder, tmp_path, refused
):
    bridge = tmp_path / "nllb"
    options = [
        base_folder("nllb") if option == base_folder("bert") else option for option in base_options
    ]
    training = ("--task", "sib200", "--data", data, "--max-steps", 1, "--batch-size", 4)
    assert palam("train", *training, "--out", bridge, *options).code == 0
    file = ("--file", data / "sib200" / "dev.sin_Sinh.jsonl", *CPU)
    message = refused("evaluate", bridge, *file, "--html", tmp_path / "page.html")
    assert message.startswith("this encoder must be told the language of the texts; give it")
    assert palam("evaluate", bridge, *file, "--languages", "si").code == 0
    assert palam("evaluate", bridge, *file, "--llm-only").code == 0


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


def test_one_language_is_shown_by_label_and_written_as_a_page(palam, evaluation, tmp_path):
    page, json_file = tmp_path / "page.html", tmp_path / "results.json"
    files = ("--html", page, "--json", json_file, "--least-certain", 3)
    result = palam(*evaluation, "--languages", "si", *files)
    assert (result.code, result.err) == (0, "")
    of_language = json.loads(json_file.read_text())["results"]["sin_Sinh"]
    for label, figures in of_language["by_label"].items():
        assert figures["support"] == 3
        assert re.search(
            rf"^{label} +{figures['precision']:.3f} +{figures['recall']:.3f}", result.out, re.M
        )
    counts = of_language["confusion"]["counts"]
    assert [sum(row) for row in counts] == [3] * 7
    right = sum(counts[place][place] for place in range(7))
    assert right / 21 == of_language["accuracy"]
    for number, (label, row) in enumerate(zip(LABELS, counts, strict=True), 1):
        assert re.search(rf"^{number} {label} +" + " +".join(map(str, row)), result.out, re.M)
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    assert 'class="heat confusion"' in html
    assert "Least certain" in html
    assert "least certain" in result.out
    rows = json.loads(json_file.read_text())["least_certain"]
    assert len(rows) == 3
    assert [row["margin"] for row in rows] == sorted(row["margin"] for row in rows)
    assert all(row["text"] in html for row in rows)


def test_a_file_with_a_column_of_languages(palam, trained, data, tmp_path):
    rows = []
    for code, name in (("si", "sin_Sinh"), ("en", "eng_Latn")):
        for row in read_jsonl(data / "sib200" / f"dev.{name}.jsonl")[:9]:
            rows.append({**row, "code": code})
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    json_file = tmp_path / "results.json"
    command = ("evaluate", trained, "--file", own, "--json", json_file, *CPU)
    result = palam(*command, "--language-column", "code")
    assert result.code == 0, result.err
    results = json.loads(json_file.read_text())["results"]
    assert {code: values["n"] for code, values in results.items()} == {"si": 9, "en": 9}
    missing = palam(*command, "--language-column", "code", "--languages", "ta")
    assert missing.code == 2
    assert "no row is in 'ta'; the languages are: si, en" in missing.err


def test_codes_that_mean_the_same_are_one_language(palam, trained, data, tmp_path):
    own = tmp_path / "own.csv"
    with own.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "code"])
        for code, name in (("si", "sin_Sinh"), ("en", "eng_Latn")):
            spellings = [code.upper(), name, code, f"{code}-IN"]
            for place, row in enumerate(read_jsonl(data / "sib200" / f"dev.{name}.jsonl")[:8]):
                table.writerow([row["text"], row["label"], spellings[place % 4]])
    json_file = tmp_path / "results.json"
    command = ("evaluate", trained, "--file", own, "--json", json_file, *CPU)
    for asked in ((), ("--languages", "sin,en,si")):
        result = palam(*command, "--language-column", "code", *asked)
        assert result.code == 0, result.err
        results = json.loads(json_file.read_text())["results"]
        assert {code: values["n"] for code, values in results.items()} == {"SI": 8, "EN": 8}
        assert "mean of 2" in result.out


def test_no_result_takes_the_place_of_what_is_read_or_of_another(refused, trained, data, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_bytes((data / "sib200" / "dev.sin_Sinh.jsonl").read_bytes())
    link = tmp_path / "link.jsonl"
    link.symlink_to(own)
    before = own.read_bytes()
    command = ("evaluate", trained, "--file", own, *CPU)
    for option in ("--json", "--html", "--predictions"):
        for place in (own, link, tmp_path / "x" / ".." / "own.jsonl"):
            assert "is what is read; give another file to write" in refused(*command, option, place)
    same = ("--json", tmp_path / "out", "--predictions", tmp_path / "out")
    assert f"two results would be written to {tmp_path / 'out'}" in refused(*command, *same)
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--least-certain", "3", "--method", "generate"), "needs --method score"),
        (("--least-certain", "0"), "--least-certain"),
        (("--limit", "0"), "limit is 0; it must be at least 1"),
        (("--format", "csv"), "--format needs --file"),
        (("--sheet", "1"), "--sheet needs --file"),
        (("--language-column", "code"), "--language-column needs --file"),
        (("--html", "/"), "folder"),
    ],
)
def test_options_that_do_not_fit(refused, evaluation, options, message):
    assert message in refused(*evaluation, *options)


def test_the_seed_is_an_option_where_something_is_drawn(palam):
    for name in ("classify", "inspect", "eval-harness"):
        assert "--seed" not in palam(name, "--help").out
    for name in ("evaluate", "generate"):
        assert "--seed" in palam(name, "--help").out


def test_results_are_recorded_with_the_bridge(palam, bridge, data, refused):
    evaluation = ("evaluate", bridge, "--task", "sib200", "--data", data, *CPU)
    assert palam(*evaluation, "--languages", "si,en").code == 0
    assert "evaluations" not in json.loads((bridge / "results.json").read_text())
    assert palam(*evaluation, "--languages", "si,en", "--record").code == 0
    records = json.loads((bridge / "results.json").read_text())["evaluations"]
    assert [record["language"] for record in records] == ["sin_Sinh", "eng_Latn"]
    card = (bridge / "README.md").read_text(encoding="utf-8")
    assert f"{100 * records[0]['accuracy']:.1f} %" in card
    assert f"{100 * records[0]['macro_f1']:.1f} %" in card
    assert "Sinhala (sin_Sinh)" in card
    assert palam(*evaluation, "--languages", "si").code == 0  # it is a checkpoint as before
    assert "--llm-only" in refused(*evaluation, "--record", "--llm-only")
    assert "not on the hub" in refused(
        "evaluate", "someone/bridge", "--task", "sib200", "--data", data, "--record"
    )
