"""A look at data: what there is, and what is doubtful."""

import json

import pytest

from palam.errors import PalamError
from palam.tasks.inspection import MARK, check_trainable, inspect_file, inspect_texts
from palam.tasks.readers import RowSource


def sound(num_rows=200):
    """Texts that are all different, and labels that are equally frequent."""
    texts = [f"Article {number} is about the rice harvest." for number in range(num_rows)]
    labels = [("farming", "trade")[number % 2] for number in range(num_rows)]
    return texts, labels


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_sound_data_have_no_problems():
    inspection = inspect_texts("articles.csv", *sound(), language="en")
    assert inspection.problems() == []
    assert inspection.lines() == [
        "articles.csv: 200 rows",
        "labels (2): farming 100, trade 100",
        "texts: 7 words (median), 7 at most; Latin script",
    ]
    content = json.loads(json.dumps(inspection.to_dict()))
    assert content["labels"] == {"farming": 100, "trade": 100}
    assert (content["rows"], content["problems"]) == (200, [])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({3: ""}, "empty texts: 1 row"),
        ({3: "  \n"}, "empty texts: 1 row"),
        ({3: "ARTICLE 1 is  about the rice harvest."}, "texts that a row before has too: 1 row"),
        ({2: "Article 1 is about the rice harvest."}, "texts with several labels: 2 rows"),
    ],
)
def test_texts_that_are_empty_or_repeated(change, problem):
    texts, labels = sound()
    for row, text in change.items():
        texts[row] = text
    assert problem in inspect_texts("x", texts, labels).problems()


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["a", "b"] * 20, "few labelled rows: 40; 200 or more are usual"),
        (["a"] * 190 + ["b"] * 10, "few rows of: b 10; 50 or more of each label are usual"),
        (["a"] * 190 + ["b"] * 10, "95% of the rows have the label 'a': guessing it is as good"),
        ([str(row % 50) for row in range(220)], None),
        (
            [str(row % 60) for row in range(220)],
            "60 labels for 220 rows: the column holds no labels, or there are too few rows",
        ),
    ],
)
def test_labels_that_are_few_or_rare_or_too_many(labels, problem):
    texts, _ = sound(len(labels))
    problems = inspect_texts("x", texts, labels).problems()
    if problem is None:
        assert not any("holds no labels" in line for line in problems)
    else:
        assert problem in problems


def test_texts_in_another_script_than_their_language():
    texts, labels = sound()
    texts = [f"ගොවීන් {number} සහල් අස්වනු" for number in range(len(texts))]
    inspection = inspect_texts("x", texts, labels, language="en")
    (problem,) = inspection.problems()
    assert problem.startswith("the texts are taken for English, but most are in the Sinhala script")
    assert "Sinhala script" in inspection.lines()[2]
    assert inspect_texts("x", texts, labels, language="si").problems() == []


def test_texts_of_a_legacy_font():
    texts = [
        "fodaI iys; uhsfl%dpsmhla ksid Èh;a lsrSug fmr pkao%sldj h<s ie,iqï lsrSug bxðfkarejkag",
        "f.da, relj,aldßh o~qjï myr folla je<elajQ w;r wef.a iudch lqi,dkh Èkd .;af;ah'",
    ]
    problems = inspect_texts("x", texts, language="si").problems()
    assert any("FM-Abhaya" in problem for problem in problems)


def test_a_file_is_looked_at_as_it_would_be_read(tmp_path):
    texts, labels = sound()
    labels[0] = "Farming "
    labels[4] = None
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    path = write(tmp_path / "own.jsonl", rows)
    inspected = inspect_file(RowSource(path))
    assert inspected.texts == texts
    inspection = inspected.inspection
    assert inspection.labels == {"trade": 100, "farming": 98, "Farming ": 1}
    assert inspection.similar_labels == [["Farming ", "farming"]]
    assert inspection.unlabelled == 1
    problems = "\n".join(inspection.problems())
    assert "1 of 200 rows have no gold label" in problems
    assert "labels that differ only in case" in problems
    merged = inspect_file(RowSource(path), merge_labels=True).inspection
    assert merged.labels == {"trade": 100, "farming": 99}


def test_a_file_without_labels(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("one\ntwo\n")
    inspection = inspect_file(RowSource(path)).inspection
    assert (inspection.rows, inspection.labels) == (2, None)
    assert inspection.problems()[0].startswith('no column "label"')


def test_columns_that_are_not_there(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"body": "x", "label": "a"}])
    with pytest.raises(PalamError, match='no column "text" among body, label'):
        inspect_file(RowSource(path))
    with pytest.raises(PalamError, match='no column "topic" among body, label'):
        inspect_file(RowSource(path), text_column="body", label_column="topic")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(PalamError, match="is empty"):
        inspect_file(RowSource(empty))


def test_what_cannot_be_trained_on_is_a_problem_of_the_file(tmp_path):
    one_label = [{"text": f"text {row}", "label": "a"} for row in range(9)]
    path = write(tmp_path / "one.jsonl", one_label)
    (problem, *_) = inspect_file(RowSource(path)).inspection.problems()
    assert problem.startswith("palam train refuses these data: ")
    assert "every row has the label 'a'" in problem
    numbers = [{"text": {"a": 1}, "label": "a"}, {"text": "x", "label": "b"}]
    path = write(tmp_path / "numbers.jsonl", numbers)
    problems = inspect_file(RowSource(path)).inspection.problems()
    assert problems[0].startswith("no text: 1 row; the first: ")
    assert problems[0].endswith("not a text")
    assert problems[1].startswith("palam train refuses these data: ")


def test_problems_are_marked():
    lines = inspect_texts("x", ["", "a"]).lines()
    assert [line.startswith(MARK) for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({str(row): 1 for row in range(84)}, "84 rows with 84 different labels; that column holds"),
        ({"a": 2, "b": 1}, "3 rows are too few for 2 labels"),
        ({"a": 1, "b": 1, "c": 1}, "3 rows are too few for 3 labels"),
    ],
)
def test_data_that_cannot_work_are_refused(counts, message):
    with pytest.raises(PalamError, match=message):
        check_trainable("own.csv", counts)
    check_trainable("own.csv", {"a": 2, "b": 2})
