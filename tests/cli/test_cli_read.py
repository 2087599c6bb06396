"""`palam evaluate`, `classify`, `generate`, `inspect`, `info`: what they write, and that all ways of asking agree."""

import csv
import io
import json
import os
import shutil
import sys
import threading
from collections import Counter

import pytest
import tiny

from palam import PalamModel
from palam.cli import read
from palam.inference import generation as generate
from palam.inference.evaluation import wilson
from palam.inference.layer_weights import layer_weights
from palam.tasks.registry import get_task

LABELS = list(get_task("sib200").labels)
TEXTS = [
    "The dog jumps.",
    "මම ගෙදර යනවා.",
    "",
    "  A \u200d\u2028b. ",
    "The match was won by the national team.",
]
CPU = ("--device", "cpu", "--dtype", "fp32")


class Stdin(io.TextIOWrapper):
    """Standard input that holds a text."""

    def __init__(self, text):
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(text.replace("\u2028", "") + "\n" for text in TEXTS), encoding="utf-8")
    return path


def scores_close(one, other):
    return one.keys() == other.keys() and all(
        one[label] == pytest.approx(other[label], abs=2e-3) for label in one
    )


# --------------------------------------------------------------------------- evaluate
def test_evaluate_writes_the_agreed_json(palam, trained, data, tmp_path):
    files = ("--json", tmp_path / "new" / "r.json", "--predictions", tmp_path / "p.jsonl")
    result = palam(
        "evaluate",
        trained,
        "--task",
        "sib200",
        "--data",
        data,
        "--languages",
        "si,en",
        *files,
        *CPU,
    )
    assert (result.code, result.err) == (0, "")
    found = json.loads((tmp_path / "new" / "r.json").read_text())
    assert list(found) == ["task", "split", "model", "results", "macro"]
    assert (found["task"], found["split"], found["model"]) == ("sib200", "dev", str(trained))
    assert list(found["results"]) == [
        "sin_Sinh",
        "eng_Latn",
    ]  # native codes, in the order asked for
    predictions = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(predictions) == 42
    for code, one in found["results"].items():
        right = [p["prediction"] == p["label"] for p in predictions if p["language"] == code]
        assert list(one) == ["n", "accuracy", "ci95"]
        assert (one["n"], one["accuracy"]) == (21, sum(right) / 21)
        assert one["ci95"] == list(wilson(sum(right), 21))
        assert f"{one['accuracy']:.1%}" in result.out
    assert found["macro"] == pytest.approx(
        sum(one["accuracy"] for one in found["results"].values()) / 2
    )


def test_evaluate_without_languages_reads_all_there_are(palam, trained, data):
    result = palam("evaluate", trained, "--task", "sib200", "--data", data, *CPU)
    assert "English (eng_Latn)" in result.out
    assert "Sinhala (sin_Sinh)" in result.out
    assert "mean of 2" in result.out


def test_a_limit_is_stratified_by_label_seeded_and_the_same_rows_in_every_language(
    palam, trained, data, tmp_path
):
    def drawn(seed):
        files = ("--predictions", tmp_path / "p.jsonl", "--limit", 7, "--seed", seed)
        assert (
            palam("evaluate", trained, "--task", "sib200", "--data", data, *files, *CPU).code == 0
        )
        return [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]

    rows = drawn(1)
    by_language = [
        [one["row"] for one in rows if one["language"] == code] for code in ("eng_Latn", "sin_Sinh")
    ]
    assert by_language[0] == by_language[1]
    assert Counter(one["label"] for one in rows) == dict.fromkeys(LABELS, 2)
    assert drawn(1) == rows
    assert [one["row"] for one in drawn(2)] != [one["row"] for one in rows]


def test_evaluate_by_generation_and_by_the_llm_alone(palam, trained, data, tmp_path):
    common = ("evaluate", trained, "--task", "sib200", "--data", data, "--languages", "en", *CPU)
    assert palam(*common, "--method", "generate", "--predictions", tmp_path / "g.jsonl").code == 0
    assert all(
        "answer" in json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()
    )
    for name, options in {"bridge": (), "direct": ("--direct",)}.items():
        assert palam(*common, *options, "--predictions", tmp_path / name).code == 0
    assert (tmp_path / "bridge").read_text() != (tmp_path / "direct").read_text()


def test_a_labelled_file_of_ones_own_is_measured_like_a_task(palam, trained, data, tmp_path):
    rows = [
        json.loads(line)
        for line in (data / "sib200" / "dev.sin_Sinh.jsonl").read_text().splitlines()
    ]
    with (tmp_path / "own.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("sentence", "topic"), *((row["text"], row["label"]) for row in rows)])
    own = ("--file", tmp_path / "own.csv", "--text-column", "sentence", "--label-column", "topic")
    result = palam(
        "evaluate",
        trained,
        *own,
        "--languages",
        "sin_Sinh",
        "--predictions",
        tmp_path / "own.jsonl",
        *CPU,
    )
    assert result.code == 0
    task = (
        "--task",
        "sib200",
        "--data",
        data,
        "--languages",
        "si",
        "--predictions",
        tmp_path / "task.jsonl",
    )
    assert palam("evaluate", trained, *task, *CPU).code == 0
    assert (tmp_path / "own.jsonl").read_text() == (tmp_path / "task.jsonl").read_text()
    refused = palam("evaluate", trained, *own, *CPU)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--languages si" in refused.err
    assert palam("evaluate", trained, *CPU).err == "palam: error: give either --task or --file\n"


def test_cut_texts_and_unknown_tokens_are_told(palam, data, base_options, tmp_path):
    common = (
        "--task",
        "sib200",
        "--data",
        data,
        "--batch-size",
        4,
        "--max-steps",
        1,
        "--max-length",
        8,
    )
    assert palam("train", *common, "--out", tmp_path / "short", *base_options).code == 0
    result = palam(
        "evaluate",
        tmp_path / "short",
        "--task",
        "sib200",
        "--data",
        data,
        "--languages",
        "si",
        *CPU,
    )
    (row,) = [line for line in result.out.splitlines() if "sin_Sinh" in line]
    cut = int(row.split("│")[5])
    assert 7 <= cut <= 21
    assert "cut: at 8 tokens" in result.out


# --------------------------------------------------------------------------- classify
def test_one_text(palam, trained, jsonl):
    result = palam("classify", trained, "--text", TEXTS[1], *CPU)
    assert (result.code, result.err) == (0, "")
    (row,) = jsonl(result.out)
    assert row["text"] == TEXTS[1]
    assert list(row["scores"]) == LABELS
    assert row["prediction"] == max(row["scores"], key=row["scores"].get)


def test_rows_come_out_in_input_order_however_they_come_in(
    palam, trained, tmp_path, monkeypatch, jsonl
):
    texts = [*TEXTS[:3], 'b, "c"', TEXTS[4]]
    rows = [{"id": i, "headline": text, "more": [i]} for i, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "headline"], *([str(i), text] for i, text in enumerate(texts))])
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    found = {}
    for name, options in {
        "a.jsonl": ("--column", "headline"),
        "a.csv": ("--column", "headline"),
        "a.txt": ("--batch-size", 1),
    }.items():
        result = palam("classify", trained, "--file", tmp_path / name, *options, *CPU)
        assert (result.code, result.err) == (0, "")
        found[name] = jsonl(result.out)
    monkeypatch.setattr(sys, "stdin", Stdin((tmp_path / "a.txt").read_text(encoding="utf-8")))
    found["-"] = jsonl(palam("classify", trained, "--file", "-", *CPU).out)
    assert [
        {key: row[key] for key in ("id", "headline", "more")} for row in found["a.jsonl"]
    ] == rows
    assert [row["headline"] for row in found["a.csv"]] == texts
    assert [row["text"] for row in found["a.txt"]] == [row["text"] for row in found["-"]] == texts
    alone = [jsonl(palam("classify", trained, "--text", text, *CPU).out)[0] for text in texts]
    for rows in found.values():
        assert [row["prediction"] for row in rows] == [row["prediction"] for row in alone]
        assert all(
            scores_close(row["scores"], one["scores"]) for row, one in zip(rows, alone, strict=True)
        )


def test_a_file_is_read_and_written_a_chunk_at_a_time(palam, trained, monkeypatch, tmp_path):
    class Lines:
        """A thousand lines, counted as they are taken."""

        taken = 0

        def __iter__(self):
            for number in range(1000):
                self.taken += 1
                yield f"text {number}\n".encode()

    lines = Lines()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": lines}))
    monkeypatch.setattr(read, "CHUNK", 4)
    ahead = []
    real = PalamModel.run_llm
    monkeypatch.setattr(
        PalamModel, "run_llm", lambda *a, **k: ahead.append(lines.taken) or real(*a, **k)
    )

    class Enough(Exception):
        pass

    def stop(row):
        if "text 20" in row["text"]:
            raise Enough

    monkeypatch.setattr("palam.cli.output._writer", lambda file: stop)
    with pytest.raises(Enough):
        palam("classify", trained, "--file", "-", "--labels", "a,b", *CPU)
    assert ahead[0] <= 5
    assert lines.taken <= 29


def test_labels_of_ones_own(palam, trained, jsonl):
    (row,) = jsonl(
        palam("classify", trained, "--text", "a", "--labels", " good, very bad ,good", *CPU).out
    )
    assert list(row["scores"]) == ["good", "very bad"]


def test_an_unpaired_surrogate_survives(palam, trained, tmp_path, jsonl):
    (tmp_path / "s.jsonl").write_text('{"text": "a \\ud800 b", "id": "\\udfff"}\n{"text": "මම"}\n')
    for options in ((), ("--out", tmp_path / "o.jsonl")):
        result = palam("classify", trained, "--file", tmp_path / "s.jsonl", *options, *CPU)
        assert result.code == 0
        first, second = jsonl(result.out or (tmp_path / "o.jsonl").read_text(encoding="utf-8"))
        assert (first["text"], first["id"], second["text"]) == ("a \ud800 b", "\udfff", "මම")


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(palam, trained, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert palam("classify", trained, "--text", "a", "--out", tmp_path / "pipe", *CPU).code == 0
    reader.join(10)
    assert json.loads(got[0])["text"] == "a"
    assert (tmp_path / "pipe").is_fifo()


def test_a_task_of_two_columns(palam, base_options, tmp_path, jsonl):
    (tmp_path / "lingnli").mkdir()
    words = ("man", "dog", "fox", "cat", "team", "book", "rice")
    rows = [
        {
            "premise": f"The {words[i % 3]} sleeps.",
            "hypothesis": f"The {words[i % 7]} is awake.",
            "label": i % 3,
        }
        for i in range(12)
    ]
    (tmp_path / "lingnli" / "train.en.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    options = ("--task", "lingnli", "--data", tmp_path, "--max-steps", 2)
    assert palam("train", *options, "--out", tmp_path / "nli", *base_options).code == 0
    pair = {"premise": "The man sleeps.", "hypothesis": "The cat is awake."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    (row,) = jsonl(
        palam("classify", tmp_path / "nli", "--file", tmp_path / "pairs.jsonl", *CPU).out
    )
    assert {key: row[key] for key in pair} == pair
    joined = f"Premise: {pair['premise']} Hypothesis: {pair['hypothesis']}"
    (same,) = jsonl(palam("classify", tmp_path / "nli", "--text", joined, *CPU).out)
    assert scores_close(row["scores"], same["scores"])
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps(pair) + "\n" + '{"premise": null, "hypothesis": "a"}\n'
    )
    result = palam("classify", tmp_path / "nli", "--file", tmp_path / "pairs.jsonl", *CPU)
    assert result.code == 2
    assert 'line 2: column "premise" holds None' in result.err


def test_settings_from_yaml(palam, trained, tmp_path, data, jsonl):
    (tmp_path / "c.yaml").write_text("labels: [one, two]\nbatch-size: 3\ndevice: cpu\n")
    (row,) = jsonl(palam("classify", trained, "--text", "a", "--config", tmp_path / "c.yaml").out)
    assert list(row["scores"]) == ["one", "two"]
    (tmp_path / "e.yaml").write_text(
        f"task: sib200\ndata: {data}\nlanguages: [si]\njson: {tmp_path / 'r.json'}\n"
    )
    assert palam("evaluate", trained, "--config", tmp_path / "e.yaml", *CPU).code == 0
    assert list(json.loads((tmp_path / "r.json").read_text())["results"]) == ["sin_Sinh"]


# --------------------------------------------------------------------------- generate
def test_an_answer_is_streamed(palam, trained, text_file, jsonl):
    result = palam("generate", trained, "--text", TEXTS[0], "--max-new-tokens", 12, *CPU)
    assert (result.code, result.err) == (0, "")
    rows = jsonl(palam("generate", trained, "--file", text_file, "--max-new-tokens", 12, *CPU).out)
    assert [row["text"] for row in rows] == text_file.read_text(encoding="utf-8").splitlines()
    assert rows[0]["answer"] == result.out.rstrip()
    assert rows[0]["answer"]


def test_the_llm_alone_answers_as_it_does_in_python(palam, trained, text_file, jsonl):
    options = ("--direct", "--max-new-tokens", 12, *CPU)
    rows = jsonl(palam("generate", trained, "--file", text_file, *options).out)
    model = PalamModel.from_pretrained(trained)
    assert [row["answer"] for row in rows] == generate(
        model, [row["text"] for row in rows], llm_only=True, max_new_tokens=12
    )
    assert (
        palam("generate", trained, "--text", rows[0]["text"], *options).out.rstrip()
        == rows[0]["answer"]
    )
    bridge = jsonl(palam("generate", trained, "--file", text_file, *options[1:]).out)
    assert [row["answer"] for row in bridge] != [row["answer"] for row in rows]


def test_another_prompt_and_drawn_answers(palam, trained):
    def says(*options):
        result = palam("generate", trained, "--text", TEXTS[0], *CPU, *options)
        assert result.code == 0
        return result.out

    assert says("--prompt", "Translate: {text}\nEnglish:") != says()
    assert says("--mode", "chat") != says()
    drawn = says("--temperature", 2, "--seed", 1)
    assert drawn == says("--temperature", 2, "--seed", 1)
    assert drawn != says("--temperature", 2, "--seed", 2)


# --------------------------------------------------------------------------- inspect, info
@pytest.mark.parametrize("suffix", [".png", ".html", ".json"])
def test_inspect(palam, trained, tmp_path, suffix):
    result = palam(
        "inspect", trained, "--text", "I am going home.", "--out", tmp_path / f"view{suffix}", *CPU
    )
    assert result.code == 0
    lines = result.out.splitlines()
    tokens = layer_weights(PalamModel.from_pretrained(trained), "I am going home.")[0]
    assert [line.split()[0] for line in lines if line.split()[0] in tokens] == tokens
    assert result.err == f"written to {tmp_path / f'view{suffix}'}\n"
    start = {".png": b"\x89PNG", ".html": b"<!doctype html>", ".json": b'{"text"'}[suffix]
    assert (tmp_path / f"view{suffix}").read_bytes().startswith(start)


def test_info(palam, trained):
    result = palam("info")
    assert result.code == 0
    for word in ("palam", "transformers", "transformer_softmax", "sinhala_news", "cpu"):
        assert word in result.out
    result = palam("info", trained)
    assert result.code == 0
    for line in (
        "encoder     bert: 3 layers, 32 wide",
        "fusion      mean, normalize layer",
        "task        sib200 (topic)",
    ):
        assert line in result.out


# --------------------------------------------------------------------------- the base models
def test_moved_bases_are_told_where_they_are(palam, bridge, trained, tmp_path, base_folder, jsonl):
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
    (row,) = jsonl(palam("classify", bridge, "--text", "a", *moved, *CPU).out)
    assert [row] == jsonl(palam("classify", trained, "--text", "a", *CPU).out)


def test_other_bases_only_with_allow_mismatch(palam, trained, base_folder):
    other = ("--llm", base_folder("llama", seed=1))
    result = palam("classify", trained, "--text", "a", *other, *CPU)
    assert result.code == 2
    assert "is not the LLM that this bridge was trained with (other weights)" in result.err
    assert palam("classify", trained, "--text", "a", *other, "--allow-mismatch", *CPU).code == 0


def test_an_encoder_that_must_be_told_the_language(palam, data, base_folder, tmp_path, jsonl):
    bases = ("--encoder", base_folder("nllb"), "--llm", base_folder("llama"))
    options = ("--task", "sib200", "--data", data, "--max-steps", 2, "--out", tmp_path / "nllb")
    assert palam("train", *options, *bases, *CPU).code == 0

    def scores(*options):
        return jsonl(
            palam("classify", tmp_path / "nllb", "--text", tiny.TEXT["si"], *options, *CPU).out
        )[0]["scores"]

    assert scores("--language", "si") == scores("--language", "sin_Sinh")
    assert scores("--language", "si") != scores("--language", "ta")
    result = palam("classify", tmp_path / "nllb", "--text", "a", "--language", "fr", *CPU)
    assert result.code == 2
    assert "'fr'" in result.err
