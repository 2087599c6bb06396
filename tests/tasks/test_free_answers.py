"""Tasks whose answers are texts: the same row in English, and questions about a text."""

import json

import pytest
from helpers import refusal

from palam.inference.reading_metrics import WORD
from palam.tasks.loading import available, load_split
from palam.tasks.registry import get_task
from palam.tasks.task import VARIANTS, Example

READING = get_task("reading")
QUESTIONS = get_task("questions")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("PALAM_DATA", raising=False)


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_reading_has_the_english_text_of_the_same_row_of_sib200(tmp_path):
    rows = [{"text": "නිවස", "label": "travel"}, {"text": "ගස", "label": "no topic"}]
    write(tmp_path / "sib200" / "dev.sin_Sinh.jsonl", rows)
    write(tmp_path / "sib200" / "dev.eng_Latn.jsonl", [{"text": "house"}, {"text": "tree"}])
    examples = load_split(READING, "dev", "si", data_dir=tmp_path)
    assert examples == [
        Example(0, {"text": "නිවස"}, "house"),
        Example(1, {"text": "ගස"}, "tree"),
    ]
    assert available(READING, data_dir=tmp_path) == {"dev": ["eng_Latn", "sin_Sinh"]}
    assert READING.answer("house") == "house"
    assert not READING.labels


def test_a_row_that_english_does_not_have_is_refused(tmp_path):
    write(tmp_path / "sib200" / "dev.sin_Sinh.jsonl", [{"text": "නිවස"}, {"text": "ගස"}])
    write(tmp_path / "sib200" / "dev.eng_Latn.jsonl", [{"text": "house"}])
    message = refusal(load_split, READING, "dev", "si", data_dir=tmp_path)
    assert message.startswith("row 1 is not in the reference language, which has 1 rows")


def test_questions_are_asked_about_every_text_in_every_language():
    codes = available(QUESTIONS)["dev"]
    assert codes == [*QUESTIONS.languages]
    assert len(codes) == 7
    english = load_split(QUESTIONS, "dev", "en")
    assert len(english) == 300
    assert len({example.fields["text"] for example in english}) == 60
    accepted = [answer for example in english for answer in example.label.split(VARIANTS)]
    assert all(map(WORD.search, accepted))
    for code in codes:
        examples = load_split(QUESTIONS, "dev", code)
        assert [example.label for example in examples] == [example.label for example in english]
        assert len({example.fields["text"] for example in examples}) == 60
        assert all(example.fields["text"].strip() for example in examples)
    prompt = QUESTIONS.prompt_of(english[0])
    assert prompt == "{text}\nQuestion: Who opened the shop?\nAnswer:"
    shop = next(example for example in english if "What did she open?" in example.fields.values())
    assert shop.label == "shop / store / bakery"
    assert QUESTIONS.answer(shop.label) == "shop"


def test_no_answer_is_said_by_its_question_but_where_it_offers_others():
    for example in load_split(QUESTIONS, "dev", "en"):
        words = example.fields["question"].lower().rstrip("?").split()
        accepted = example.label.split(" / ")
        assert not any(character.isdigit() for character in example.label)
        if example.fields["wrong"]:
            assert "or" in words
            assert not set(accepted) & set(example.fields["wrong"].split(" / "))
        else:
            assert not set(accepted) & set(words), example


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": 7, "question": "Who?", "answers": ["x"]}, "line 1: there is no text 7"),
        ({"text": 0, "question": "Who?", "answers": []}, "a list of right answers"),
        ({"text": 0, "answers": ["x"]}, "a question needs its words"),
    ],
)
def test_a_wrong_question_is_named(tmp_path, row, message):
    write(tmp_path / "questions" / "dev.en.jsonl", [{"text": "house"}])
    write(tmp_path / "questions" / "questions.jsonl", [row])
    assert message in refusal(load_split, QUESTIONS, "dev", "en", data_dir=tmp_path)
    (tmp_path / "questions" / "questions.jsonl").unlink()
    missing = refusal(load_split, QUESTIONS, "dev", "en", data_dir=tmp_path)
    assert missing.startswith("questions needs the file ")
