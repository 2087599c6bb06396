"""`palam lexicon`, and what is trained with it."""

import csv

import pytest
from helpers import read_jsonl
from tiny import TEXT

from palam.alignment import lexicon_induction


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text(f"{TEXT['en']}\n" * 3, encoding="utf-8")
    return path


@pytest.fixture
def few_words(monkeypatch):
    """A tiny encoder's vocabulary has few whole words."""
    monkeypatch.setattr(lexicon_induction, "LEAST_WORDS", 2)


@pytest.fixture
def pretraining(english, base_options, tmp_path):
    lines = [f"{word} is a word of this text" for word in TEXT["en"].split()]
    english.write_text("\n".join(lines), encoding="utf-8")
    return ("pretrain", "--text-file", english, "--out", tmp_path / "general", *base_options)


@pytest.fixture
def training(data, base_options, tmp_path):
    return ("train", "--task", "sib200", "--data", data, "--out", tmp_path / "out", *base_options)


@pytest.mark.usefixtures("few_words")
def test_a_lexicon_is_written_and_trained_with(palam, pretraining, base_folder, english, tmp_path):
    out = tmp_path / "lexicon.jsonl"
    encoder = ("--encoder", base_folder("t5"), "--device", "cpu")
    result = palam("lexicon", "--text-file", english, "--out", out, *encoder)
    assert result.code == 0, result.err
    rows = read_jsonl(out)
    assert rows
    words = {word.strip(".,:?").lower() for word in english.read_text("utf-8").split()}
    for row in rows:
        assert list(row) == ["word", "translation", "language", "score"]
        assert row["word"] in words
        assert row["translation"].lower() not in words
        assert row["language"] in result.out
    assert result.err.splitlines()[-1] == f"{len(rows):,} translations saved to {out}"
    steps = ("--max-steps", 2, "--batch-size", 4)
    result = palam(*pretraining, *steps, "--lexicon", out, "--code-switch", 0.5)
    assert (result.code, result.out) == (0, ""), result.err


@pytest.mark.usefixtures("few_words")
def test_a_spreadsheet_can_be_written(palam, base_folder, english, tmp_path):
    out = tmp_path / "lexicon.csv"
    encoder = ("--encoder", base_folder("t5"), "--device", "cpu")
    assert palam("lexicon", "--text-file", english, "--out", out, *encoder).code == 0
    with out.open(encoding="utf-8-sig") as file:
        assert csv.DictReader(file).fieldnames == ["word", "translation", "language", "score"]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("nllb", "must be told the language"),
        ("t5", "words stand in the text 3 times; 200 are the least; give more text"),
    ],
)
def test_an_encoder_without_words_is_refused(
    palam, base_folder, english, tmp_path, encoder, message
):
    out = tmp_path / "lexicon.jsonl"
    arguments = ("--text-file", english, "--out", out, "--encoder", base_folder(encoder))
    result = palam("lexicon", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.usefixtures("few_words")
def test_nothing_found_leaves_an_earlier_lexicon_as_it_was(
    refused, base_folder, english, tmp_path, monkeypatch
):
    monkeypatch.setattr(lexicon_induction, "induced_pairs", lambda *vectors: iter(()))
    out = tmp_path / "lexicon.jsonl"
    out.write_text("an earlier one", encoding="utf-8")
    encoder = ("--encoder", base_folder("t5"), "--device", "cpu")
    line = refused("lexicon", "--text-file", english, "--out", out, *encoder)
    assert "nothing saved" in line
    assert out.read_text("utf-8") == "an earlier one"


def test_a_place_that_cannot_be_written_is_told_first(palam, english, tmp_path):
    result = palam("lexicon", "--text-file", english, "--out", tmp_path)
    assert result.code == 2
    assert "is a folder; give a file to write" in result.err
    before = english.read_text("utf-8")
    result = palam("lexicon", "--text-file", english, "--out", english)
    assert result.code == 2
    assert "is what is read; give another file to write" in result.err
    assert english.read_text("utf-8") == before


def test_a_tasks_rows_are_read_with_words_of_other_languages(palam, training, tmp_path):
    lexicon = tmp_path / "own.csv"
    lexicon.write_text("word,translation,language\nthe,ilé,Yoruba\n", encoding="utf-8")
    result = palam(*training, "--lexicon", lexicon, "--epochs", 2)
    assert (result.code, result.out) == (0, ""), result.err
    lexicon.write_text("word,translation\nthe,ilé\n", encoding="utf-8")
    result = palam(*training, "--lexicon", lexicon, "--epochs", 2)
    assert result.code == 2
    assert 'own.csv, line 2: no column "language" among word, translation' in result.err


def test_no_bridge_is_solved_from_a_lexicon(refused, base_options, data, tmp_path):
    task = ("--task", "sib200", "--data", data, "--lexicon", tmp_path / "lexicon.jsonl")
    assert "lexicon is learned in training" in refused("align", *task, *base_options)
