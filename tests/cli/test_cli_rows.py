"""Rows in and out of `palam classify` and `generate`: formats, columns, languages, places."""

import csv
import io
import json
import math
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import pytest
import tiny
from helpers import write_jsonl

from palam import PalamModel
from palam.cli import _rows
from palam.scale.work import probabilities
from palam.tasks.readers import RowSource

CPU = ("--device", "cpu", "--dtype", "fp32")
LABELS = ("--labels", "good,bad,text")
ROWS = [
    {"id": 1, "text": "මම ගෙදර යනවා", "note": "=1+1"},
    {"id": 2, "text": "", "note": None},
    {"id": 3, "text": 'a, "b"; \t c', "note": "line\nbreak"},
]


@pytest.fixture(scope="module")
def told(tiny_model, tmp_path_factory):
    """A bridge whose encoder must be told the language; not to be changed."""
    folder = tmp_path_factory.mktemp("told") / "bridge"
    tiny_model("nllb").save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    write_jsonl(path, ROWS)
    return path


@pytest.fixture
def classified(palam, untrained, tmp_path):
    """`classified(file, "out.csv", ...)`: the rows that are in the output."""

    def call(file, name, *options, command=("classify", *LABELS), notes=""):
        out = tmp_path / name
        result = palam(*command, untrained, "--file", file, "--out", out, *CPU, *options)
        assert (result.code, result.out, result.err) == (0, "", notes)
        return [row for _, row in RowSource(out).rows()]

    return call


def refusal(result):
    assert (result.code, result.err.count("\n")) == (2, 1), result
    return result.err.removeprefix("palam: error: ").rstrip("\n")


# --------------------------------------------------------------------------- formats
def test_the_probability_among_the_labels():
    assert probabilities([math.log(3), 0.0]) == [0.75, 0.25]
    assert probabilities([-9000.0, -9001.0, -99999.0]) == [0.731059, 0.268941, 0.0]


def test_rows_of_json_have_scores_and_a_confidence(classified, texts):
    lines = classified(texts, "out.jsonl")
    array = classified(texts, "out.json")
    assert array == lines
    for row, out in zip(ROWS, lines, strict=True):
        assert list(out) == ["id", "text", "note", "prediction", "confidence", "scores"]
        assert {name: out[name] for name in row} == row
        assert list(out["scores"]) == ["good", "bad", "text"]
        weights = {label: math.exp(score) for label, score in out["scores"].items()}
        share = weights[out["prediction"]] / sum(weights.values())
        assert out["confidence"] == pytest.approx(share, abs=1e-6)
        assert out["confidence"] == max(probabilities(out["scores"].values()))


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "parquet", "CSV"])
def test_a_spreadsheet_has_flat_columns(classified, texts, ending):
    expected = classified(texts, "out.jsonl")
    rows = classified(texts, f"out.{ending}")
    for out, of_json in zip(rows, expected, strict=True):
        names = ["id", "text", "note", "prediction", "confidence", "good", "bad", "palam_text"]
        assert list(out) == names
        for name in ("id", "text", "note"):
            assert str(out[name] or "") == str(of_json[name] or "")
        assert out["prediction"] == of_json["prediction"]
        assert float(out["confidence"]) == of_json["confidence"]
        shares = [float(out[label]) for label in ("good", "bad", "palam_text")]
        assert shares == probabilities(of_json["scores"].values())
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_a_workbook_goes_in_and_comes_out(classified, tmp_path):
    workbook = openpyxl.Workbook()
    workbook.active.append(["nothing"])
    sheet = workbook.create_sheet("Letters")
    sheet.append(["text", "date"])
    sheet.append(["මම ගෙදර යනවා", 3])
    sheet.append(["I am going home.", None])
    workbook.save(tmp_path / "letters.xlsx")
    classified(tmp_path / "letters.xlsx", "out.xlsx", "--sheet", "Letters")
    out = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    header, *rows = out.iter_rows(values_only=True)
    assert header[:4] == ("text", "date", "prediction", "confidence")
    assert [row[:2] for row in rows] == [("මම ගෙදර යනවා", 3), ("I am going home.", None)]
    assert all(0 < row[3] <= 1 for row in rows)


def test_a_column_that_some_rows_lack(classified, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b", "id": 7}])
    rows = classified(tmp_path / "a.jsonl", "out.csv")
    names = ["text", "id", "prediction", "confidence", "good", "bad", "palam_text"]
    assert [list(row) for row in rows] == [names, names]
    assert [row["id"] for row in rows] == ["", "7"]


def test_answers_in_a_spreadsheet(classified, texts):
    command = ("generate", "--max-new-tokens", 2)
    rows = classified(texts, "out.csv", command=command)
    answers = [row["answer"] for row in classified(texts, "out.jsonl", command=command)]
    assert [row["answer"] for row in rows] == answers
    assert list(rows[0]) == ["id", "text", "note", "answer"]
    write_jsonl(texts, [{**row, "answer": "mine"} for row in ROWS])
    rows = classified(texts, "beside.csv", command=command)
    assert [(row["answer"], row["palam_answer"]) for row in rows] == [
        ("mine", answer) for answer in answers
    ]


def test_the_format_of_a_file_can_be_told(palam, classified, untrained, tmp_path):
    file = tmp_path / "letters"
    file.write_text("text,id\na,1\n")
    assert classified(file, "out.jsonl", "--format", "csv")[0]["id"] == "1"
    options = ("classify", untrained, *LABELS, "--file", file, *CPU)
    assert "looks like a table" in refusal(palam(*options))
    assert "there is no format 'word'" in refusal(palam(*options, "--format", "word"))
    assert "has no sheets" in refusal(palam(*options, "--sheet", "A"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "a", "--format", "csv"), "--format needs --file"),
        (("--text", "a", "--sheet", "A"), "--sheet needs --file"),
        (("--text", "a", "--language-column", "l"), "--language-column needs --file"),
        (
            ("--file", "-", "--language", "si", "--language-column", "l"),
            "give either --language or --language-column",
        ),
    ],
)
def test_options_that_do_not_go_together(refused, untrained, options, message):
    assert refused("classify", untrained, *options) == message


def test_a_format_that_cannot_be_written_is_refused_before_any_work(
    palam, refused, untrained, texts, tmp_path, monkeypatch
):
    run = ("classify", "nowhere", *LABELS, "--file", texts, *CPU, "--out")
    assert "let its name end in .xlsx or .csv" in refused(*run, tmp_path / "out.xls")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    line = refused(*run, tmp_path / "out.xlsx")
    assert line == '.xlsx needs openpyxl: pip install "palam[tables]"'
    monkeypatch.undo()
    columns = ",".join(f"l{number}" for number in range(16_384))
    many = ("classify", untrained, "--labels", columns, "--file", texts, *CPU)
    monkeypatch.setattr("palam.inference.scoring.LabelScorer.score", None)
    line = refused(*many, "--out", tmp_path / "out.xlsx")
    assert "are more than the 16,384 of a sheet" in line


# --------------------------------------------------------------------------- columns
@pytest.fixture
def letters(untrained, tmp_path):
    """A bridge that was trained on a file's columns `Article` and `Topic`."""
    model = PalamModel.from_pretrained(untrained)
    model.config.task = {
        "name": "letters",
        "family": "custom",
        "text": "{text}",
        "labels": [["good", "good"], ["bad", "bad"]],
        "columns": {"text": "Article", "label": "Topic"},
    }
    model.save_pretrained(tmp_path / "letters")
    return tmp_path / "letters"


def test_the_column_trained_on_is_the_default(palam, letters, tmp_path, jsonl):
    file = tmp_path / "more.csv"
    file.write_text("text,Article\nanother,I am going home.\n")
    options = (letters, "--file", file, *CPU)
    (expected,) = jsonl(palam("classify", letters, "--text", "I am going home.", *CPU).out)
    (row,) = jsonl(palam("classify", *options).out)
    assert row["scores"] == expected["scores"]
    (row,) = jsonl(palam("classify", *options, "--column", "text").out)
    assert row["scores"] != expected["scores"]
    for command in ("classify", "generate"):
        file.write_text("text,Body\na,b\n")
        line = refusal(palam(command, *options))
        assert 'no column "Article" among text, Body; name one with --column' in line


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_rows_of_a_text_alone_need_not_have_the_column_trained_on(
    palam, letters, tmp_path, jsonl, name
):
    contents = {"a.txt": "a text\n", "a.jsonl": '{"text": "a text"}\n', "a.csv": "text\na text\n"}
    (tmp_path / name).write_text(contents[name])
    (row,) = jsonl(palam("classify", letters, "--file", tmp_path / name, *CPU).out)
    (expected,) = jsonl(palam("classify", letters, "--text", "a text", *CPU).out)
    assert row["scores"] == expected["scores"]


def test_a_template_of_one_column_is_filled_whatever_the_column(palam, letters, tmp_path, jsonl):
    config = json.loads((letters / "config.json").read_text())
    config["task"]["text"] = "Review {{1}}: {review.text}"
    config["task"]["columns"] = {"review.text": "review.text", "label": "stars"}
    (letters / "config.json").write_text(json.dumps(config))
    (tmp_path / "a.csv").write_text("review.text,other\nwarm {soup},cold\n")
    options = (letters, "--file", tmp_path / "a.csv", *CPU)
    (row,) = jsonl(palam("classify", *options).out)
    (by_text,) = jsonl(palam("classify", letters, "--text", "warm {soup}", *CPU).out)
    assert row["scores"] == by_text["scores"]
    (other,) = jsonl(palam("classify", *options, "--column", "other").out)
    (by_text,) = jsonl(palam("classify", letters, "--text", "cold", *CPU).out)
    assert other["scores"] == by_text["scores"] != row["scores"]


# --------------------------------------------------------------------------- languages
def test_an_encoder_that_must_be_told_the_language_is_told_it(palam, told, texts):
    for command in (("classify", *LABELS), ("generate",)):
        for source in (("--text", "a"), ("--file", texts)):
            line = refusal(palam(*command, told, *source, *CPU))
            assert "--language si" in line
            assert "--language-column" in line
    alone = ("generate", told, "--text", "a", "--llm-only", "--max-new-tokens", 2, *CPU)
    assert palam(*alone).code == 0


def test_each_row_has_its_language(palam, told, tmp_path, jsonl):
    file = tmp_path / "rows.jsonl"
    codes = ["si", "si-LK", "sin_Sinh", "sin", "ta", "en-US"]
    write_jsonl(file, [{"text": tiny.TEXT["si"], "code": f" {code} "} for code in codes])
    run = ("classify", told, *LABELS, *CPU)
    rows = jsonl(palam(*run, "--file", file, "--language-column", "code").out)
    scores = [row["scores"] for row in rows]
    assert scores[0] == scores[1] == scores[2] == scores[3]
    for score, language in ((scores[0], "si"), (scores[4], "ta_IN"), (scores[5], "eng_Latn")):
        (row,) = jsonl(palam(*run, "--text", tiny.TEXT["si"], "--language", language).out)
        assert row["scores"] == pytest.approx(score, abs=1e-3)
    assert scores[0] != scores[4] != scores[5]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "line 2: column \"code\" holds ''"),
        ("xx", "line 2: column \"code\" holds 'xx', which is no language"),
        ("fr", "line 2: the encoder's tokenizer has no language 'fr'"),
    ],
)
def test_a_rows_language_that_is_unknown(palam, told, tmp_path, code, message):
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [{"text": "a", "code": "si"}, {"text": "a", "code": code}])
    run = ("classify", told, *LABELS, "--file", file, *CPU)
    result = palam(*run, "--language-column", "code")
    assert message in refusal(result)
    assert result.out == ""
    assert 'no column "lang" among text, code' in refusal(palam(*run, "--language-column", "lang"))


# --------------------------------------------------------------------------- what is told
def test_what_was_cut_is_told_at_the_end(palam, untrained, tmp_path, caplog):
    file = tmp_path / "long.txt"
    file.write_text("one two three four " * 100 + "\nshort\n", encoding="utf-8")
    limit = PalamModel.from_pretrained(untrained).processor.max_length
    note = f"1 of 2 texts was longer than {limit} tokens and was cut there"
    for command in (("classify", *LABELS), ("generate", "--max-new-tokens", 2)):
        assert palam(*command, untrained, "--file", file, *CPU).code == 0
        assert caplog.messages == [note]
        caplog.clear()
    palam("generate", untrained, "--text", file.read_text(), "--max-new-tokens", 2, *CPU)
    assert caplog.messages == [note.replace("1 of 2", "1 of 1")]


def test_texts_that_are_no_unicode_are_told_once(palam, untrained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_rows, "CHUNK_BATCHES", 1)
    file = tmp_path / "fonts.txt"
    lines = ["f.da, relj,aldßh o~qjï myr folla je<elajQ w;r wef.a iudch lqi,dkh Èkd .;af;ah'"] * 6
    file.write_text("\n".join(lines), encoding="utf-8")
    run = ("classify", untrained, *LABELS, "--file", file, "--batch-size", 2, *CPU)
    assert palam(*run, "--language", "si").code == 0
    notes = [note for note in caplog.messages if "not Unicode" in note]
    assert notes == [
        "the texts look like Sinhala for a font such as FM-Abhaya, not Unicode, which the encoder "
        "cannot read: convert them"
    ]


def test_a_script_that_the_encoder_does_not_know_is_told(palam, untrained, tmp_path, caplog):
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"text": "ꯃꯩꯇꯩꯂꯣꯟ ꯂꯣꯟ", "code": "mni"}, {"text": "a", "code": "en"}])
    run = ("classify", untrained, *LABELS, "--file", file, *CPU)
    assert palam(*run, "--language-column", "code").code == 0
    (note,) = caplog.messages
    assert "of the tokens of the texts in Meitei (mni) are unknown to the encoder" in note


def test_progress_has_a_total_of_which_some_may_be_done(palam, untrained, texts, monkeypatch):
    calls = []

    def progress_bar(description, total=None, console=None, *, done=0):
        calls.append((description, total, done))
        return bar(description, total)

    bar = _rows.progress_bar
    monkeypatch.setattr(_rows, "progress_bar", progress_bar)
    stream = SimpleNamespace(buffer=iter([b"a\n", b"b\n"]))
    monkeypatch.setattr(sys, "stdin", stream)
    for source in (texts, "-"):
        assert palam("classify", untrained, *LABELS, "--file", source, *CPU).code == 0
    assert calls == [("classifying", 3, 0), ("classifying", None, 0)]


# --------------------------------------------------------------------------- places
def test_a_pipe_is_opened_once(palam, untrained, tmp_path, jsonl):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    content = "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(5))
    writer = threading.Thread(target=lambda: pipe.write_text(content))
    writer.start()
    result = palam("classify", untrained, *LABELS, "--file", pipe, *CPU)
    writer.join(10)
    assert not writer.is_alive()
    assert [row["text"] for row in jsonl(result.out)] == [f"text {number}" for number in range(5)]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/", "'/' cannot be written; give the name of a new file or folder"),
        (".", "'.' cannot be written; give the name of a new file or folder"),
        ("", "'.' cannot be written; give the name of a new file or folder"),
        ("folder", "folder is a folder; give a file to write"),
        ("texts.jsonl/out", "is no folder that can be written to"),
        ("a\0b", "cannot be written"),
        ("a" * 300, "cannot be written: File name too long"),
        ("folder/" + "a" * 250, "cannot be written: File name too long"),
        ("/dev/full", "/dev/full cannot be written: No space left on device"),
    ],
)
def test_places_where_nothing_can_be_written(
    palam, untrained, texts, tmp_path, monkeypatch, out, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for options in ((), ("--overwrite",)):
        run = ("classify", untrained, *LABELS, "--file", texts, *CPU, *options)
        assert message in refusal(palam(*run, "--out", out))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipe_takes_json_lines_alone(palam, untrained, texts, tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    run = ("classify", untrained, *LABELS, "--file", texts, "--out", pipe, *CPU)
    assert "to which only JSON lines go" in refusal(palam(*run))
    pipe.rename(tmp_path / "pipe")
    options = ("--out", tmp_path / "pipe", "--resume")
    assert "--resume needs a file" in refusal(palam(*run, *options))


def test_an_output_behind_a_link(palam, untrained, texts, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out.jsonl"
    link.symlink_to(tmp_path / "disk" / "rows.jsonl")
    run = ("classify", untrained, *LABELS, "--file", texts, "--out", link, *CPU)
    assert palam(*run).code == 0
    assert link.is_symlink()
    assert len((tmp_path / "disk" / "rows.jsonl").read_text().splitlines()) == 3
    assert "exists already" in refusal(palam(*run))


class TextOnly:
    """A standard output as a notebook has it: it takes text, and has no buffer."""

    def __init__(self, encoding="utf-8"):
        self.encoding = encoding
        self.text = ""

    def write(self, text):
        text.encode(self.encoding)
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False


def printed(run, monkeypatch, stdout, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert run([str(argument) for argument in arguments]) == 0
    return stdout


def test_rows_are_utf8_whatever_standard_output_is(untrained, texts, monkeypatch):
    from palam.cli.main import run

    arguments = ("classify", untrained, *LABELS, "--file", texts, *CPU)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    content = printed(run, monkeypatch, stdout, *arguments).buffer.getvalue().decode()
    assert [json.loads(line)["text"] for line in content.splitlines()] == [
        row["text"] for row in ROWS
    ]
    notebook = printed(run, monkeypatch, TextOnly(), *arguments)
    assert notebook.text == content


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_answer_with_characters_that_standard_output_lacks(untrained, monkeypatch, encoding):
    from palam.cli.main import run

    def answer(*_arguments, streamer, **_options):
        streamer.on_finalized_text(" \u0db8 and é", stream_end=True)

    monkeypatch.setattr(PalamModel, "generate", answer)
    arguments = ("generate", untrained, "--text", "a", *CPU)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    content = printed(run, monkeypatch, stdout, *arguments).buffer.getvalue().decode(encoding)
    assert content == ("\\u0db8 and é\n" if encoding == "cp1252" else "\\u0db8 and \\xe9\n")
    assert printed(run, monkeypatch, TextOnly(encoding), *arguments).text == content


def test_what_a_terminal_would_obey_in_an_answer_is_written_out(untrained, monkeypatch):
    from palam.cli.main import run

    def answer(*_arguments, streamer, **_options):
        streamer.on_finalized_text("red \x1b[31m\nand so on", stream_end=True)

    monkeypatch.setattr(PalamModel, "generate", answer)
    stdout = TextOnly()
    monkeypatch.setattr(stdout, "isatty", lambda: True, raising=False)
    arguments = ("generate", untrained, "--text", "a", *CPU)
    assert printed(run, monkeypatch, stdout, *arguments).text == "red \\x1b[31m\nand so on\n"


def test_a_full_or_closed_standard_output_is_one_line(palam, untrained, texts, monkeypatch):
    for command in (("classify", *LABELS, "--file", texts), ("generate", "--text", "a")):
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", full)
                result = palam(command[0], untrained, *command[1:], *CPU)
            line = refusal(result)
        assert line == "standard output cannot be written: No space left on device"
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            result = palam(command[0], untrained, *command[1:], *CPU)
        assert refusal(result) == "standard output is closed; give a file with --out"


def test_a_table_of_the_demonstration_in_a_spreadsheet_programs_own_dialect(classified, tmp_path):
    (tmp_path / "letters.csv").write_bytes("sep=;\r\nid;text\r\n1;අම්මා, ගෙදර\r\n".encode())
    rows = classified(tmp_path / "letters.csv", "out.csv")
    assert rows[0]["text"] == "අම්මා, ගෙදර"
    content = (tmp_path / "out.csv").read_text(encoding="utf-8-sig")
    assert next(csv.reader(content.splitlines()))[:2] == ["id", "text"]
