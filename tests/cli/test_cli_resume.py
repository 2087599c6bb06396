"""`palam classify` and `generate` with --resume: wherever stopped, the same file comes out."""

import json

import pytest

from palam.inference.scoring import LabelScorer

CPU = ("--device", "cpu", "--dtype", "fp32")
ROWS = [{"id": i, "text": f"මම ගෙදර යනවා {i}", "note": "mine"} for i in range(9)]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps(row) + "\n" for row in ROWS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def classifying(trained, texts):
    return ("classify", trained, "--file", texts, "--resume", *CPU)


@pytest.mark.parametrize("command", [("classify",), ("generate", "--max-new-tokens", 2)])
@pytest.mark.parametrize("num_done", [0, 1, 4.5, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    palam, trained, texts, tmp_path, command, num_done
):
    run = (command[0], trained, "--file", texts, *command[1:], *CPU)
    assert palam(*run, "--out", tmp_path / "whole.jsonl").code == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    done = lines[: int(num_done)]
    if num_done % 1:  # a line that was being written
        done.append(lines[int(num_done)][:20])
    (tmp_path / "out.jsonl.partial").write_bytes(b"".join(done))
    result = palam(*run, "--out", tmp_path / "out.jsonl", "--resume")
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_what_is_done_stays_when_a_run_is_stopped(palam, classifying, tmp_path, monkeypatch):
    monkeypatch.setattr("palam.cli._source.CHUNK_SIZE", 4)
    monkeypatch.setattr(LabelScorer, "score", _stops_at(2))
    out = tmp_path / "out.jsonl"
    assert palam(*classifying, "--out", out).code == 130
    monkeypatch.undo()
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 4
    assert palam(*classifying, "--out", out).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(9))


def _stops_at(last_call):
    score = LabelScorer.score
    calls = []

    def stopping_score(*arguments, **options):
        calls.append(arguments)
        if len(calls) == last_call:
            raise KeyboardInterrupt
        return score(*arguments, **options)

    return stopping_score


@pytest.mark.parametrize(
    ("command", "results", "message"),
    [
        ("classify", {"prediction": "x", "scores": {}}, "has other labels"),
        ("generate", {"prediction": "x"}, "is not of the rows of"),
    ],
)
def test_what_was_done_for_something_else_is_refused(
    palam, trained, texts, tmp_path, command, results, message
):
    partial = tmp_path / "out.jsonl.partial"
    line = json.dumps({"id": 7, "text": "another", **results}) + "\n"
    partial.write_text(line)
    options = ("--file", texts, "--out", tmp_path / "out.jsonl", "--resume", *CPU)
    result = palam(command, trained, *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert partial.read_text() == line


def test_there_must_be_a_file_to_resume(refused, trained, texts, tmp_path):
    message = "--resume needs --file and --out"
    assert refused("classify", trained, "--text", "a", "--resume", *CPU) == message
    assert refused("classify", trained, "--file", texts, "--resume", *CPU) == message
    files = ("--file", texts, "--out", tmp_path / "nowhere.jsonl")
    missing = ("--resume", "--column", "none")
    assert 'no column "none"' in refused("classify", trained, *files, *missing, *CPU)
