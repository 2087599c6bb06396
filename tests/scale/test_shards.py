"""Many files: which are read, what is noted of a job, and what has become of each."""

import os

import pytest
from helpers import refusal, write_jsonl

from palam.scale.shards import (
    CorpusFile,
    Job,
    Shard,
    claim_job,
    corpus_files,
    file_facts,
    is_corpus,
    mark_done,
    marker_path,
    read_job,
    state_of,
)

IDENTITY = {"labels": ["good", "bad"], "bridge": {"sha256": "ab"}}
OTHER = {"labels": ["good", "worse"], "bridge": {"sha256": "cd"}}


@pytest.fixture
def done(corpus, tmp_path):
    """`part-0`, which is done; the output folder is `tmp_path / "out"`."""
    out = tmp_path / "out"
    file = corpus_files(str(corpus))[0]
    out.mkdir()
    (out / file.name).write_text("{}\n")
    mark_done(out, file, IDENTITY, file_facts(file.path))
    return out, file


def test_the_files_of_a_folder_of_its_folders_and_of_a_pattern(corpus):
    (corpus / "more").mkdir()
    for name in ("more/a.parquet", ".hidden.csv", "_SUCCESS.json", "notes.txt", "part-9.partial"):
        (corpus / name).touch()
    names = [file.name for file in corpus_files(str(corpus))]
    assert names == ["more/a.parquet", "part-0.jsonl", "part-1.jsonl", "part-2.jsonl"]
    pattern = f"{corpus}/part-[01].*"
    assert [file.name for file in corpus_files(pattern)] == ["part-0.jsonl", "part-1.jsonl"]
    assert [file.name for file in corpus_files(f"{corpus}/**/*.parquet")] == ["more/a.parquet"]
    assert is_corpus(str(corpus))
    assert is_corpus(pattern)
    assert not is_corpus(f"{corpus}/part-0.jsonl")
    assert "holds none of these files" in refusal(corpus_files, f"{corpus}/*.csv")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "a[1].csv").touch()
    assert not is_corpus(f"{tmp_path}/a[1].csv")


def test_shards_are_parts_of_which_none_share_a_file():
    files = [CorpusFile(None, str(number)) for number in range(10)]
    parts = [Shard.parse(f"{number}/3").of(files) for number in range(3)]
    assert sorted(file for part in parts for file in part) == files
    assert [len(part) for part in parts] == [4, 3, 3]


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "a/b", "0/0", ""])
def test_a_shard_that_is_none_is_refused(text):
    assert "give its number from 0 and how many there are" in refusal(Shard.parse, text)


def test_a_file_is_done_if_output_and_marker_are_of_this_job_and_this_input(done):
    out, file = done
    assert state_of(out, file, IDENTITY) == "done"
    assert state_of(out, file, OTHER) == "of another job"
    os.utime(file.path)  # the same content at another time
    assert state_of(out, file, IDENTITY) == "done"
    write_jsonl(file.path, [{"id": 0, "text": "another"}])
    assert state_of(out, file, IDENTITY) == "changed"


def test_an_output_or_a_marker_alone_is_not_done(done):
    out, file = done
    marker = marker_path(out, file).read_bytes()
    marker_path(out, file).unlink()
    assert state_of(out, file, IDENTITY) == "missing"
    marker_path(out, file).write_bytes(marker)
    (out / file.name).rename(out / f"{file.name}.partial")
    assert state_of(out, file, IDENTITY) == "begun"


def test_a_damaged_marker_is_one_line(done):
    out, file = done
    marker_path(out, file).write_text("{")
    assert refusal(state_of, out, file, IDENTITY).endswith("is damaged; delete it")


def test_a_folder_is_of_one_job(tmp_path):
    claim_job(tmp_path, Job(IDENTITY, "texts"))
    claim_job(tmp_path, Job(IDENTITY, "elsewhere/texts"))
    line = refusal(claim_job, tmp_path, Job(OTHER, "texts"))
    assert 'the labels was ["good", "bad"], now ["good", "worse"] (also changed: bridge)' in line
    assert read_job(tmp_path).identity == IDENTITY
    claim_job(tmp_path, Job(OTHER, "texts"), overwrite=True)
    assert read_job(tmp_path).identity == OTHER


def test_a_disk_without_links_can_hold_a_job(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    claim_job(tmp_path, Job(IDENTITY, "texts"))
    assert read_job(tmp_path) == Job(IDENTITY, "texts")
