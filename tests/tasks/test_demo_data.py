"""The demonstration's data: whole, parallel, in the right scripts, test and training apart."""

import json
import re
import unicodedata
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from palam.utils.languages import find_language

DEMO = Path(str(files("palam.tasks"))) / "demo"
TOPICS = {
    "science/technology",
    "travel",
    "politics",
    "sports",
    "health",
    "entertainment",
    "geography",
}
PROMISED = {
    "eng_Latn",
    "sin_Sinh",
    "tam_Taml",
    "mal_Mlym",
    "ben_Beng",
    "hin_Deva",
    "swh_Latn",
    "amh_Ethi",
}
CODES = sorted(path.name.split(".")[1] for path in DEMO.glob("test.*.jsonl"))

# Words of the test sentences that speak of no topic: grammar, number, time, degree, everyday verbs,
# people.
GENERAL = """
above after against all almost along and are because before but can each every few for from hardly
has her how into its most much near new old the they through too until way will with without your
first second third ten two twice times thousands day week minute small young women
called gave give help keep makes took turned went
"""


def rows(name):
    lines = (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(texts):
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())}


def names(texts):
    """Words written with a capital that do not begin a sentence."""
    inside = (word for text in texts for word in re.findall(r"(?<=[^.!?] )\W*([A-Z]\w*)", text))
    return {word.lower() for word in inside}


def stem(word):
    """The first five letters, a plural's s left off before: songs and song, voters and voter."""
    return (word[:-1] if len(word) > 3 and word.endswith("s") else word)[:5]


@pytest.fixture(scope="module")
def train():
    return [row["text"] for row in rows("train.eng_Latn")]


@pytest.fixture(scope="module")
def held_out():
    return [row["text"] for row in rows("test.eng_Latn")]


def test_the_promised_languages_are_there():
    assert set(CODES) >= PROMISED
    assert len(CODES) >= 11


@pytest.mark.parametrize(
    ("name", "per_topic"), [("train.eng_Latn", 50), *((f"test.{code}", 5) for code in CODES)]
)
def test_topics_are_balanced_and_no_text_comes_twice(name, per_topic):
    data = rows(name)
    assert Counter(row["label"] for row in data) == dict.fromkeys(TOPICS, per_topic)
    assert len({" ".join(row["text"].lower().split()) for row in data}) == len(data)
    assert all(
        row.keys() == {"text", "label"} and row["text"] == row["text"].strip() for row in data
    )


@pytest.mark.parametrize("name", ["train.eng_Latn", *(f"test.{code}" for code in CODES)])
def test_the_file_is_plain_utf8_that_a_speaker_can_edit(name):
    raw = (DEMO / f"{name}.jsonl").read_bytes()
    assert b"\\u" not in raw
    assert raw.endswith(b"}\n")


@pytest.mark.parametrize("code", CODES)
def test_every_language_renders_the_same_sentences_in_its_own_script(code):
    data, english = rows(f"test.{code}"), rows("test.eng_Latn")
    assert [row["label"] for row in data] == [row["label"] for row in english]
    language = find_language(code)
    assert language is not None
    for row, original in zip(data, english, strict=True):
        letters = [char for char in row["text"] if unicodedata.category(char)[0] in "LM"]
        in_its_script = [
            char for char in letters if unicodedata.name(char).startswith(language.script.upper())
        ]
        assert len(in_its_script) > 0.9 * len(letters) > 0, row["text"]
        assert code == "eng_Latn" or row["text"] != original["text"]


def test_training_is_in_mixed_order():
    labels = [row["label"] for row in rows("train.eng_Latn")]
    assert all(set(labels[start : start + 70]) == TOPICS for start in range(0, 350, 70))


def test_no_sentence_or_name_is_in_both(train, held_out):
    assert not {text.lower() for text in train} & {text.lower() for text in held_out}
    assert not names(held_out) & words(train)
    assert not names(train) & words(held_out) - words([GENERAL])  # New Zealand


def test_no_topic_word_is_in_both(train, held_out):
    stems = {stem(word) for word in words(train)}
    topical = words(held_out) - words([GENERAL])
    assert sorted(word for word in topical if len(word) > 2 and stem(word) in stems) == []
