"""Soft labels: read from what `palam classify` writes, and drawn by their probabilities."""

import json
import math
from collections import Counter

import pytest

from palam import PalamError
from palam.tasks.readers import RowSource
from palam.tasks.registry import get_task
from palam.tasks.soft_labels import SoftAnswer, read_soft_labels

TASK = get_task("tweet_sentiment")
COLUMNS = {"text": "text"}


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return RowSource(path)


def scores(negative=-2.0, neutral=-1.0, positive=-0.5):
    return {"negative": negative, "neutral": neutral, "positive": positive}


def test_probabilities_are_those_of_the_log_probabilities(tmp_path):
    source = written(tmp_path, {"text": "I like it.", "scores": scores(), "prediction": "positive"})
    (row,) = read_soft_labels(source, COLUMNS, TASK)
    total = math.exp(-2.0) + math.exp(-1.0) + math.exp(-0.5)
    assert row.fields == {"text": "I like it."}
    assert row.answer.answers == ("negative", "neutral", "positive")
    assert row.answer.probabilities == pytest.approx(
        [math.exp(-2.0) / total, math.exp(-1.0) / total, math.exp(-0.5) / total]
    )


def test_a_row_without_any_probability_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,negative,neutral,positive\nI like it.,0,0,0\n")
    with pytest.raises(PalamError, match="line 2: no label has a probability"):
        list(read_soft_labels(RowSource(path), COLUMNS, TASK))


def test_a_label_is_drawn_as_often_as_its_probability_says():
    answer = SoftAnswer(("a", "b", "c"), (0.5, 0.0, 0.5))
    numbers = [round(place / 1000 * 2**64) for place in range(1000)]
    assert Counter(map(answer.drawn, numbers)) == {"a": 500, "c": 500}
    assert answer.drawn(2**64 - 1) == "c"


def test_the_words_of_a_label_are_the_answer(tmp_path):
    task = get_task("sib200")
    names = dict.fromkeys(task.labels, -3.0)
    (row,) = read_soft_labels(written(tmp_path, {"text": "x", "scores": names}), COLUMNS, task)
    assert "science" in row.answer.answers
    assert "science/technology" not in row.answer.answers


def test_a_table_has_a_probability_in_a_column_for_each_label(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,positive,palam_positive,neutral,negative\nGood.,yes,0.75,0.25,0\nNot read.,,,,\n"
    )
    (row,) = read_soft_labels(RowSource(path), COLUMNS, TASK)
    by_answer = dict(zip(row.answer.answers, row.answer.probabilities, strict=True))
    assert by_answer == pytest.approx({"positive": 0.75, "neutral": 0.25, "negative": 0.0})


def test_a_users_own_column_of_scores_is_not_taken_for_the_labels(tmp_path):
    row = {"text": "x", "scores": [7], "palam_scores": scores()}
    assert len(list(read_soft_labels(written(tmp_path, row), COLUMNS, TASK))) == 1


def test_a_line_of_plain_text_needs_no_column_of_the_users(tmp_path):
    rows = [
        {"text": "A line.", "scores": scores()},
        {"review": "Another.", "text": "x", "scores": scores()},
    ]
    found = read_soft_labels(written(tmp_path, *rows), {"text": "review"}, TASK)
    assert [row.fields["text"] for row in found] == ["A line.", "Another."]


def test_rows_that_were_not_labelled_are_left_out(tmp_path):
    source = written(tmp_path, {"text": "x", "scores": None}, {"text": "y", "scores": scores()})
    assert [row.fields["text"] for row in read_soft_labels(source, COLUMNS, TASK)] == ["y"]


def test_without_a_task_each_row_has_labels_of_its_own(tmp_path):
    source = written(
        tmp_path,
        {"text": "x", "scores": {"music": 0.0}},
        {"text": "y", "scores": {"law": -1.0, "daily life": -1.0}},
    )
    first, second = read_soft_labels(source, COLUMNS)
    assert first.answer == SoftAnswer(("music",), (1.0,))
    assert second.answer == SoftAnswer(("law", "daily life"), (0.5, 0.5))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, 'line 1: there is neither "scores" nor a column "negative"'),
        ({"scores": scores()}, 'line 1: no column "text"'),
        ({"text": "x", "scores": {"joy": 0.0}}, '"joy" is none of the labels, which are: negative'),
        ({"text": "x", "scores": scores(neutral=math.nan)}, 'the score of "neutral" is no'),
        ({"text": "x", "scores": scores(neutral="-1")}, 'the score of "neutral" is no'),
        ({"text": "x", "scores": scores(neutral=True)}, 'the score of "neutral" is no'),
        ({"text": "x", "scores": {}}, '"scores" is no object'),
        ({"text": "x", "scores": [1.0]}, '"scores" is no object'),
        ({"text": "x", "scores": {"neutral": -math.inf}}, "no label has a probability"),
        (
            {"text": "x", "negative": 1.5, "neutral": 0, "positive": 0},
            'the column "negative" holds 1.5, which is no probability',
        ),
    ],
)
def test_what_is_no_row_of_labels_is_named(tmp_path, row, message):
    with pytest.raises(PalamError) as error:
        list(read_soft_labels(written(tmp_path, row), COLUMNS, TASK))
    assert message in str(error.value)


def test_without_a_task_there_must_be_scores(tmp_path):
    with pytest.raises(PalamError, match='line 1: there is no "scores"'):
        list(read_soft_labels(written(tmp_path, {"text": "x"}), COLUMNS))
