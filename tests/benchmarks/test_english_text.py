"""English text of several sources: `benchmarks/english_text.py`."""

import json
import sys

import pytest
from helpers import benchmark_script

WIKI = "Rice is the seed of a grass species.It is eaten by many people. Heading\nToo short.\n"
GLOSSES = """  1 This is a licence of some lines
00001740 03 n 02 ice_cream 0 frozen_cream 0 000 | a frozen sweet food made of cream; "we ate ice \
cream at the beach"; "ice"
00001740 03 s 01 awake(p) 0 000 | not in a state of sleep
00001930 03 v 01 run 0 001 @ 1 n 0000 | move fast by using one's own feet
"""


@pytest.fixture(scope="module")
def english_text():
    return benchmark_script("english_text")


@pytest.fixture
def written(english_text, tmp_path, monkeypatch):
    """The lines that are written from sources that are given as texts by option."""

    def write(**sources):
        arguments = ["english_text.py", "--out", str(tmp_path / "english.txt")]
        for option, text in sources.items():
            suffix = ".jsonl" if text.startswith("{") else ".txt"
            path = tmp_path / f"{option}{suffix}"
            path.write_text(text, encoding="utf-8")
            arguments += [f"--{option.replace('_', '-')}", str(path)]
        if (tmp_path / "dict").exists():
            arguments += ["--wordnet", str(tmp_path / "dict")]
        monkeypatch.setattr(sys, "argv", arguments)
        english_text.main()
        return (tmp_path / "english.txt").read_text(encoding="utf-8").splitlines()

    return write


def jsonl(**row):
    return json.dumps(row) + "\n"


def test_prose_is_taken_sentence_by_sentence(written, capsys):
    lines = written(wiki=WIKI)
    assert sorted(lines) == [
        "It is eaten by many people.",
        "Rice is the seed of a grass species.",
    ]
    assert "encyclopaedia: 2 lines, 14 words" in capsys.readouterr().out


def test_examples_and_definitions_of_wordnet(written, tmp_path):
    (tmp_path / "dict").mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        path = tmp_path / "dict" / f"data.{part}"
        path.write_text(GLOSSES if part == "noun" else "", encoding="utf-8")
    assert sorted(written()) == [
        "awake: not in a state of sleep",
        "ice cream: a frozen sweet food made of cream",
        "run: move fast by using one's own feet",
        "we ate ice cream at the beach",
    ]


def test_each_text_is_taken_once_and_in_one_line(written):
    row = jsonl(premise="Two dogs run\nover the grass.", hypothesis="Two dogs run over the  grass.")
    assert written(nli=row + row) == ["Two dogs run over the grass."]


def test_what_is_measured_on_is_left_out(written, capsys):
    question = "A man has three red apples. His sister has four of them. How many are there now?"
    left_out = jsonl(text="Once a MAN has three, red apples!")
    lines = written(maths=jsonl(question=question), leave_out=left_out)
    assert sorted(lines) == ["His sister has four of them.", "How many are there now?"]
    assert "1 left out" in capsys.readouterr().out


def test_what_was_not_drawn_can_come_from_another_source(english_text):
    texts = [f"this is the line with number {number}" for number in range(50)]
    lines = english_text.Lines([], 0)
    lines.take(texts, most=10)
    assert lines.take(texts) == (40, 280)
    assert sorted(lines.lines) == sorted(texts)


def test_a_sample_of_a_long_source_is_drawn_by_the_seed(english_text):
    texts = [f"this is the line with number {number}" for number in range(50)]
    drawn = []
    for seed in (0, 0, 1):
        lines = english_text.Lines([], seed)
        assert lines.take(texts, most=10) == (10, 70)
        drawn.append(lines.shuffled())
    assert drawn[0] == drawn[1] != drawn[2]
