"""`palam classify` and `generate` over many files and with several processes; `palam shards`."""

import json

import pytest
from helpers import write_jsonl

from palam.inference.scoring import LabelScorer

CPU = ("--device", "cpu", "--dtype", "fp32")
LABELS = ("--labels", "good,bad", "--batch-size", 4)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    names = ["part-0.jsonl", "part-1.csv", "more/part-2.jsonl", "part-3.jsonl"]
    for number, name in enumerate(names):
        rows = [{"id": str(10 * number + i), "text": f"the fox {i} {number}"} for i in range(10)]
        if name.endswith(".csv"):
            lines = ["id,text", *(f"{row['id']},{row['text']}" for row in rows)]
            (folder / name).write_text("\n".join(lines) + "\n")
        else:
            write_jsonl(folder / name, rows)
    return folder


@pytest.fixture
def classify(palam, untrained, corpus, tmp_path):
    """`classify("--shard", "0/2")`: the command over the corpus, into the folder `out`."""

    def call(*options, labels=LABELS, file=corpus, out=tmp_path / "out"):
        return palam("classify", untrained, "--file", file, "--out", out, *labels, *CPU, *options)

    return call


@pytest.fixture(autouse=True)
def chunks_of_one_batch(monkeypatch):
    monkeypatch.setattr("palam.cli._rows.CHUNK_BATCHES", 1)


def refusal(result):
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
    return result.err.removeprefix("palam: error: ").rstrip("\n")


def contents(folder):
    """The outputs of a folder by their names, without the notes."""
    files = [path for path in folder.rglob("*") if path.is_file() and "_palam" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_shards_together_give_what_one_run_gives_and_each_file_what_it_gives_alone(
    classify, palam, corpus, untrained, tmp_path
):
    for number in range(2):
        result = classify("--shard", f"{number}/2")
        assert (result.code, result.err) == (0, "")
        status = palam("shards", "status", tmp_path / "out")
        assert status.code == (1 if number == 0 else 0)
        assert ("missing" in status.out) == (number == 0)
    assert classify(out=tmp_path / "whole").code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sorted(contents(tmp_path / "out")) == [
        "more/part-2.jsonl",
        "part-0.jsonl",
        "part-1.csv",
        "part-3.jsonl",
    ]
    alone = tmp_path / "alone.jsonl"
    assert classify("--keep-errors", file=corpus / "part-0.jsonl", out=alone).code == 0
    assert alone.read_bytes() == (tmp_path / "out" / "part-0.jsonl").read_bytes()


def test_what_is_done_is_not_done_again_and_a_changed_file_is(
    classify, palam, corpus, tmp_path, scored_texts
):
    assert classify().code == 0
    scored_texts.clear()
    assert classify().code == 0
    assert scored_texts == []
    write_jsonl(corpus / "part-3.jsonl", [{"id": "30", "text": "new"}])
    assert "part-3.jsonl: changed" in palam("shards", "status", tmp_path / "out").out
    assert classify().code == 0
    assert scored_texts == ["new"]
    assert palam("shards", "status", tmp_path / "out").code == 0


@pytest.mark.parametrize("after", [0, 1, 2, 4, 7])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(classify, tmp_path, monkeypatch, after):
    assert classify(out=tmp_path / "whole").code == 0
    score = LabelScorer.score
    calls = []

    def stopping_score(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return score(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LabelScorer, "score", stopping_score)
        assert classify().code == 130
    assert classify().code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_run_that_was_killed_between_output_and_marker(classify, palam, tmp_path, monkeypatch):
    def killed(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr("palam.cli._corpus.mark_done", killed)
        with pytest.raises(SystemExit):
            classify()
    assert classify().code == 0
    assert palam("shards", "status", tmp_path / "out").code == 0
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_another_job_is_refused_and_replaces_the_first_only_if_that_is_asked_for(
    classify, palam, tmp_path
):
    assert classify("--shard", "0/2").code == 0
    before = contents(tmp_path / "out")
    others = ("--labels", "good,worse", "--batch-size", 4)
    assert "is of another job: the labels was" in refusal(classify(labels=others))
    assert contents(tmp_path / "out") == before
    assert classify("--overwrite", labels=others).code == 0
    assert palam("shards", "status", tmp_path / "out").code == 0
    rows = [json.loads(line) for line in (tmp_path / "out/part-0.jsonl").read_text().splitlines()]
    assert set(rows[0]["scores"]) == {"good", "worse"}


def test_somebodys_file_in_the_output_folder_is_not_replaced(classify, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-0.jsonl").write_text("mine")
    line = refusal(classify())
    assert "1 of 4 files are not done, the others are: part-0.jsonl" in line
    assert (tmp_path / "out" / "part-0.jsonl").read_text() == "mine"


def test_rows_that_cannot_be_read_have_an_error_and_damaged_files_keep_no_other_from_it(
    classify, palam, corpus, tmp_path, caplog
):
    write_jsonl(corpus / "part-0.jsonl", [{"id": 1, "text": "a"}, {"id": 2, "text": ["no"]}])
    (corpus / "part-3.jsonl").write_text('{"text": "a"}\n{damaged\n')
    (corpus / "empty.jsonl").touch()
    result = classify()
    assert result.code == 2
    assert "1 of 5 files are not done, the others are: part-3.jsonl: " in result.err
    assert "1 rows could not be read" in caplog.text
    rows = [json.loads(row) for row in (tmp_path / "out/part-0.jsonl").read_text().splitlines()]
    assert (rows[0]["error"], rows[1]["prediction"]) == (None, None)
    assert "not a text" in rows[1]["error"]
    assert (tmp_path / "out" / "empty.jsonl").read_bytes() == b""
    status = palam("shards", "status", tmp_path / "out")
    assert status.code == 1
    assert "part-3.jsonl: begun" in status.out or "part-3.jsonl: missing" in status.out


def test_errors_are_kept_in_one_file_where_that_is_asked_for(palam, untrained, tmp_path, caplog):
    file = tmp_path / "texts.jsonl"
    rows = [{"text": "a"}, {"text": {"no": "text"}}, {"text": "b"}]
    write_jsonl(file, rows)
    command = ("classify", untrained, "--file", file, *LABELS, *CPU)
    assert refusal(palam(*command)).startswith(f'{file}, line 2: column "text" holds')
    for name in ("out.jsonl", "out.csv"):
        result = palam(*command, "--keep-errors", "--out", tmp_path / name)
        assert result.code == 0
        assert "1 rows could not be read" in caplog.text
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] is None for row in written] == [False, True, False]
    assert (tmp_path / "out.csv").read_text().splitlines()[2].count(",,") >= 1


def test_repeated_texts_of_a_file_are_read_once(palam, untrained, tmp_path, scored_texts):
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in "abaa"])
    result = palam("classify", untrained, "--file", tmp_path / "texts.jsonl", *LABELS, *CPU)
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert scored_texts == ["a", "b"]
    assert rows[0] == rows[2] == rows[3] != rows[1]


@pytest.mark.parametrize(
    "command",
    [
        ("classify", *LABELS),
        ("generate", "--max-new-tokens", 3, "--temperature", 2, "--batch-size", 4),
    ],
)
def test_several_processes_write_the_same_bytes_as_one(palam, untrained, tmp_path, command):
    name, *options = command
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"id": i, "text": f"the fox {i} " * (1 + i % 5)} for i in range(21)])
    for workers in (1, 2):
        out = ("--out", tmp_path / f"{workers}.jsonl", "--workers", workers)
        result = palam(name, untrained, "--file", file, *options, *CPU, *out)
        assert (result.code, result.err) == (0, "")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "2/2"), "--shard is '2/2'"),
        (("--engine", "ray", "--shard", "0/2"), "--shard is not for --engine ray"),
        (("--address", "auto"), "--address needs --engine ray"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_options_that_cannot_be_are_refused(classify, options, message):
    assert message in refusal(classify(*options))


def test_one_text_or_one_file_is_no_shard(palam, untrained, corpus):
    text = ("classify", untrained, "--text", "a", *LABELS, *CPU)
    assert refusal(palam(*text, "--workers", 2)) == "--workers needs --file"
    file = ("classify", untrained, "--file", corpus / "part-0.jsonl", *LABELS, *CPU)
    assert "--shard needs many files" in refusal(palam(*file, "--shard", "0/2"))
    many = ("classify", untrained, "--file", corpus, *LABELS, *CPU)
    assert "give a folder for the results" in refusal(palam(*many))
    assert "is in the folder that is read" in refusal(palam(*many, "--out", corpus))
    assert "is in the folder that is read" in refusal(palam(*many, "--out", corpus / "out"))
    assert not (corpus / "out").exists()
    pattern = ("classify", untrained, "--file", corpus / "*.jsonl", *LABELS, *CPU)
    assert "holds files that are read" in refusal(palam(*pattern, "--out", corpus))


def test_a_folder_that_is_no_output_has_no_status(refused, corpus):
    line = refused("shards", "status", corpus)
    assert line == f"{corpus} is no output of a run over many files"
