"""`palam classify` and `palam generate` with --resume: stopped anywhere, gone on with, the same file comes out."""

import json

import pytest

CPU = ("--device", "cpu", "--dtype", "fp32")
ROWS = [{"id": i, "text": f"මම ගෙදර යනවා {i}", "prediction": "mine"} for i in range(9)]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def asked(trained, texts):
    return ("classify", trained, "--file", texts, "--resume", *CPU)


@pytest.mark.parametrize("command", [("classify",), ("generate", "--max-new-tokens", 2)])
@pytest.mark.parametrize("kept", [0, 1, 4.5, 9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    palam, trained, texts, tmp_path, command, kept
):
    run = (command[0], trained, "--file", texts, *command[1:], *CPU)
    assert palam(*run, "--out", tmp_path / "whole.jsonl").code == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = lines[int(kept)][:20] if kept % 1 else b""  # a line that was being written
    (tmp_path / "out.jsonl.partial").write_bytes(b"".join(lines[: int(kept)]) + torn)
    result = palam(*run, "--out", tmp_path / "out.jsonl", "--resume")
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_what_is_done_stays_when_a_run_is_stopped(palam, asked, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("palam.cli.read.CHUNK", 4)
    calls = []
    monkeypatch.setattr("palam.cli.read.label_scores", _stops_at(calls, 2))
    assert palam(*asked, "--out", tmp_path / "out.jsonl").code == 130
    monkeypatch.undo()
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 4
    assert palam(*asked, "--out", tmp_path / "out.jsonl").code == 0
    assert [
        json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == list(range(9))


def _stops_at(calls, last):
    from palam.inference.scoring import score_labels

    def scores(*arguments, **options):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return score_labels(*arguments, **options)

    return scores


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"id": 7, "text": "another", "prediction": "x", "scores": {}}, "has other labels"),
        ({"id": 7, "text": "another", "prediction": "x"}, "is not of the rows of"),
    ],
)
def test_what_was_done_for_something_else_is_refused(
    palam, asked, trained, texts, tmp_path, there, message
):
    if "scores" not in there:
        run = ("generate", trained, "--file", texts, "--resume", *CPU)
    else:
        run = asked
    (tmp_path / "out.jsonl.partial").write_text(json.dumps(there) + "\n")
    result = palam(*run, "--out", tmp_path / "out.jsonl")
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert (tmp_path / "out.jsonl.partial").read_text() == json.dumps(there) + "\n"


def test_there_must_be_a_file_to_go_on_with(refused, trained, texts, tmp_path):
    assert (
        refused("classify", trained, "--text", "a", "--resume", *CPU)
        == "--resume needs --file and --out"
    )
    assert (
        refused("classify", trained, "--file", texts, "--resume", *CPU)
        == "--resume needs --file and --out"
    )
    none = ("--file", texts, "--resume", "--out", tmp_path / "nowhere.jsonl", "--column", "none")
    assert 'no column "none"' in refused("classify", trained, *none, *CPU)
