"""`palam classify`: rows in, rows out, in whatever form; and the base models that it loads."""

import csv
import io
import json
import os
import shutil
import sys
import threading

import pytest
import tiny
from helpers import write_jsonl

from palam import PalamModel
from palam.cli import _rows
from palam.inference.scoring import LabelScorer
from palam.tasks.registry import get_task

LABELS = list(get_task("sib200").labels)
TEXTS = [
    "The dog jumps.",
    "මම ගෙදර යනවා.",
    "",
    'b, "c"',
    "The match was won by the national team.",
]
CPU = ("--device", "cpu", "--dtype", "fp32")


class Stdin(io.TextIOWrapper):
    """Standard input that holds a text."""

    def __init__(self, text):
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def classify(palam, jsonl):
    """`classify(bridge, "--text", "a")`: the rows that come out."""

    def call(bridge, *options):
        result = palam("classify", bridge, *options, *CPU)
        assert (result.code, result.err) == (0, "")
        return jsonl(result.out)

    return call


def assert_scores_close(scores, expected):
    assert scores.keys() == expected.keys()
    for label, score in scores.items():
        assert score == pytest.approx(expected[label], abs=2e-3)


# --------------------------------------------------------------------------- texts and rows
def test_one_text(classify, trained):
    (row,) = classify(trained, "--text", TEXTS[1])
    assert row["text"] == TEXTS[1]
    assert list(row["scores"]) == LABELS
    assert row["prediction"] == max(row["scores"], key=row["scores"].get)


def test_one_text_that_begins_like_an_option(classify, trained):
    for text in ("-5 degrees", "--out", "-"):
        (row,) = classify(trained, "--text", text)
        assert row["text"] == text


def test_rows_come_out_in_input_order_however_they_come_in(
    classify, trained, tmp_path, monkeypatch
):
    rows = [{"id": i, "headline": text, "more": [i]} for i, text in enumerate(TEXTS)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "headline"])
        writer.writerows(enumerate(TEXTS))
    plain = "\n".join(TEXTS)
    (tmp_path / "a.txt").write_text(plain, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", Stdin(plain))
    results = {
        "JSON lines": classify(trained, "--file", tmp_path / "a.jsonl", "--column", "headline"),
        "CSV": classify(trained, "--file", tmp_path / "a.csv", "--column", "headline"),
        "plain text": classify(trained, "--file", tmp_path / "a.txt", "--batch-size", 1),
        "standard input": classify(trained, "--file", "-"),
    }
    for row, classified in zip(rows, results["JSON lines"], strict=True):
        assert {key: classified[key] for key in row} == row
    assert [row["headline"] for row in results["CSV"]] == TEXTS
    assert [row["text"] for row in results["plain text"]] == TEXTS
    assert [row["text"] for row in results["standard input"]] == TEXTS
    alone = [classify(trained, "--text", text)[0] for text in TEXTS]
    for classified in results.values():
        for row, expected in zip(classified, alone, strict=True):
            assert row["prediction"] == expected["prediction"]
            assert_scores_close(row["scores"], expected["scores"])


class CountedLines:
    """A thousand lines, counted as they are taken."""

    num_taken = 0

    def __iter__(self):
        for number in range(1000):
            self.num_taken += 1
            yield f"text {number}\n".encode()


class Enough(Exception):
    pass


def test_a_file_is_read_and_written_a_chunk_at_a_time(palam, trained, monkeypatch):
    lines = CountedLines()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": lines}))
    monkeypatch.setattr(_rows, "CHUNK_BATCHES", 2)
    num_taken_before = []
    run_llm = PalamModel.run_llm

    def counting_run_llm(*arguments, **options):
        num_taken_before.append(lines.num_taken)
        return run_llm(*arguments, **options)

    def write(line):
        if b"text 20" in line:
            raise Enough

    monkeypatch.setattr(PalamModel, "run_llm", counting_run_llm)
    monkeypatch.setattr("palam.cli._output._print_bytes", write)
    options = ("--labels", "a,b", "--batch-size", 2, *CPU)
    with pytest.raises(Enough):
        palam("classify", trained, "--file", "-", *options)
    assert num_taken_before[0] <= 5
    assert lines.num_taken <= 29


def test_one_scorer_serves_all_chunks_of_a_file(classify, trained, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    monkeypatch.setattr(_rows, "CHUNK_BATCHES", 1)
    scorers = []
    score = LabelScorer.score

    def recording_score(self, *arguments, **options):
        scorers.append(self)
        return score(self, *arguments, **options)

    monkeypatch.setattr(LabelScorer, "score", recording_score)
    assert len(classify(trained, "--file", tmp_path / "a.txt", "--batch-size", 2)) == len(TEXTS)
    assert len(scorers) == 3
    assert len(set(scorers)) == 1


def test_an_unpaired_surrogate_survives(classify, trained, tmp_path, jsonl):
    source = tmp_path / "source.jsonl"
    source.write_text('{"text": "a \\ud800 b", "id": "\\udfff"}\n{"text": "මම"}\n')
    out = tmp_path / "out.jsonl"
    printed = classify(trained, "--file", source)
    assert classify(trained, "--file", source, "--out", out) == []
    for first, second in (printed, jsonl(out.read_text(encoding="utf-8"))):
        assert (first["text"], first["id"], second["text"]) == ("a \ud800 b", "\udfff", "මම")


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(classify, trained, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    classify(trained, "--text", "a", "--out", pipe)
    reader.join(10)
    assert json.loads(received[0])["text"] == "a"
    assert pipe.is_fifo()


def test_a_task_of_two_columns(palam, classify, base_options, tmp_path):
    (tmp_path / "lingnli").mkdir()
    words = ("man", "dog", "fox", "cat", "team", "book", "rice")
    rows = []
    for i in range(12):
        premise = f"The {words[i % 3]} sleeps."
        hypothesis = f"The {words[i % 7]} is awake."
        rows.append({"premise": premise, "hypothesis": hypothesis, "label": i % 3})
    write_jsonl(tmp_path / "lingnli" / "train.en.jsonl", rows)
    bridge = tmp_path / "nli"
    options = ("--task", "lingnli", "--data", tmp_path, "--max-steps", 2)
    assert palam("train", *options, "--out", bridge, *base_options).code == 0
    pairs = tmp_path / "pairs.jsonl"
    pair = {"premise": "The man sleeps.", "hypothesis": "The cat is awake."}
    write_jsonl(pairs, [pair])
    (row,) = classify(bridge, "--file", pairs)
    assert {key: row[key] for key in pair} == pair
    joined = f"Premise: {pair['premise']} Hypothesis: {pair['hypothesis']}"
    (same,) = classify(bridge, "--text", joined)
    assert_scores_close(row["scores"], same["scores"])
    write_jsonl(pairs, [pair, {"premise": ["a"], "hypothesis": "a"}])
    result = palam("classify", bridge, "--file", pairs, *CPU)
    assert result.code == 2
    assert "line 2: column \"premise\" holds ['a'], not a text" in result.err


# --------------------------------------------------------------------------- options
def test_labels_of_ones_own(classify, trained):
    (row,) = classify(trained, "--text", "a", "--labels", " good, very bad ,good")
    assert list(row["scores"]) == ["good", "very bad"]


def test_settings_from_yaml(palam, trained, tmp_path, jsonl):
    config = tmp_path / "classify.yaml"
    config.write_text("labels: [one, two]\nbatch-size: 3\ndevice: cpu\n")
    result = palam("classify", trained, "--text", "a", "--config", config)
    (row,) = jsonl(result.out)
    assert list(row["scores"]) == ["one", "two"]


def test_of_an_option_that_is_given_twice_the_last_counts(classify, trained):
    (row,) = classify(trained, "--text", "a", "--labels", "a,b", "--labels", "c,d", "--text", "e")
    assert row["text"] == "e"
    assert list(row["scores"]) == ["c", "d"]


# --------------------------------------------------------------------------- the base models
def test_moved_bases_are_told_where_they_are(
    palam, classify, bridge, trained, tmp_path, base_folder
):
    for name in ("bert", "llama"):
        shutil.copytree(base_folder(name), tmp_path / f"moved-{name}")
    for file in ("config.json", "processor_config.json"):
        text = (bridge / file).read_text()
        for name in ("bert", "llama"):
            text = text.replace(str(base_folder(name)), f"/gone/{name}")
        (bridge / file).write_text(text)
    result = palam("classify", bridge, "--text", "a", *CPU)
    assert result.code == 2
    assert "'/gone/bert'" in result.err
    moved = ("--encoder", tmp_path / "moved-bert", "--llm", tmp_path / "moved-llama")
    assert classify(bridge, "--text", "a", *moved) == classify(trained, "--text", "a")


def test_other_bases_only_with_allow_mismatch(palam, classify, trained, base_folder):
    other = ("--llm", base_folder("llama", seed=1))
    result = palam("classify", trained, "--text", "a", *other, *CPU)
    assert result.code == 2
    assert "is not the LLM that this bridge was trained with (other weights)" in result.err
    assert classify(trained, "--text", "a", *other, "--allow-mismatch")


def test_an_encoder_that_must_be_told_the_language(palam, classify, data, base_folder, tmp_path):
    bridge = tmp_path / "nllb"
    bases = ("--encoder", base_folder("nllb"), "--llm", base_folder("llama"))
    options = ("--task", "sib200", "--data", data, "--max-steps", 2, "--out", bridge)
    assert palam("train", *options, *bases, *CPU).code == 0

    def scores(language):
        (row,) = classify(bridge, "--text", tiny.TEXT["si"], "--language", language)
        return row["scores"]

    assert scores("si") == scores("sin_Sinh")
    assert scores("si") != scores("ta")
    result = palam("classify", bridge, "--text", "a", "--language", "fr", *CPU)
    assert result.code == 2
    assert "'fr'" in result.err


@pytest.mark.parametrize("column", ["prediction", "confidence", "scores"])
def test_a_column_of_ones_own_is_never_overwritten(palam, refused, bridge, tmp_path, column):
    rows = tmp_path / "rows.jsonl"
    out = tmp_path / "out.jsonl"
    write_jsonl(rows, [{"text": "I am going home.", column: "mine"}])
    assert palam("classify", bridge, "--file", rows, "--out", out, *CPU).code == 0
    row = json.loads(out.read_text())
    assert row[column] == "mine"
    assert f"palam_{column}" in row
    out.unlink()
    write_jsonl(rows, [{"text": "a", column: "mine", f"palam_{column}": "mine too"}])
    line = refused("classify", bridge, "--file", rows, "--out", out, *CPU)
    assert f'columns "{column}" and "palam_{column}", which are needed for the results' in line
    write_jsonl(rows, [{"text": "a"}, {"text": "a", column: "mine"}])
    line = refused("classify", bridge, "--file", rows, "--labels", "a,b", *CPU)
    assert f'line 2: the column "{column}" is needed for the results' in line
