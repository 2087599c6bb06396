"""What a command adds to a row never replaces what the user has there."""

from helpers import refusal

from palam.tasks.columns import colliding_columns, free_names, with_results
from palam.tasks.readers import NumberedRow

ADDED = ("prediction", "scores")


def test_columns_of_ones_own_are_kept():
    assert free_names(["text"], ADDED) == {"prediction": "prediction", "scores": "scores"}
    own = {"text": "a", "prediction": "by annotator 1"}
    assert colliding_columns(own, ADDED) == ["prediction"]
    names = free_names(own, ADDED)
    assert names == {"prediction": "palam_prediction", "scores": "scores"}
    row = with_results(NumberedRow("line 1", own), {names["prediction"]: "x", "scores": {}})
    assert row == {**own, "palam_prediction": "x", "scores": {}}


def test_a_column_that_only_a_later_row_has_is_refused():
    numbered = NumberedRow("a.jsonl, line 7", {"text": "a", "scores": 3})
    message = refusal(with_results, numbered, {"prediction": "x", "scores": {}})
    assert message == 'a.jsonl, line 7: the column "scores" is needed for the results; rename it'


def test_both_names_taken_is_refused():
    assert "rename them" in refusal(free_names, ["scores", "palam_scores"], ADDED)
