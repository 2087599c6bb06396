"""What a bridge was trained for is kept as JSON, and read back with care."""

import json

import pytest
from helpers import refusal

from palam.models.configuration import PalamConfig
from palam.models.task_record import TaskRecord, text_alone

USUAL = TaskRecord(
    name="letters", family="custom", text="{text}", words_by_label={"1": "good", "2": "bad"}
)
OWN_FILE = TaskRecord(
    name="letters",
    family="custom",
    text="Title: {title} Body: {body}",
    words_by_label={"1": "good", "2": "bad"},
    columns={"title": "Heading", "body": "Text", "label": "Kind"},
    label_type="int",
)
CONTENT = USUAL.to_dict()


@pytest.mark.parametrize("record", [USUAL, OWN_FILE])
def test_what_was_kept_is_read_back(record):
    assert TaskRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_what_is_as_usual_is_not_kept():
    assert CONTENT == {
        "name": "letters",
        "family": "custom",
        "text": "{text}",
        "labels": [["1", "good"], ["2", "bad"]],
    }


def test_a_configuration_says_what_its_bridge_was_trained_for(tmp_path):
    assert PalamConfig().trained_task is None
    PalamConfig(task=OWN_FILE.to_dict()).save_pretrained(tmp_path)
    assert PalamConfig.from_pretrained(tmp_path).trained_task == OWN_FILE


def test_slots_are_those_of_the_text():
    assert OWN_FILE.slots == {"title", "body"}


def test_a_text_alone_takes_the_tasks_form_if_that_has_one_slot():
    letters = TaskRecord(name="letters", family="custom", text="Letter: {letter} {letter}.")
    assert text_alone(letters, "{letter} {a}") == "Letter: {letter} {a} {letter} {a}."
    assert text_alone(OWN_FILE, "a") == "a"
    assert text_alone(None, "a") == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, "task is 3, not a mapping"),
        ({**CONTENT, "name": None}, "the task's name is None, not a text"),
        ({**CONTENT, "text": 3}, "the task's text is 3, not a text"),
        ({**CONTENT, "text": "all"}, "the task's text 'all' has no slot, such as {text}"),
        (
            {**CONTENT, "labels": [["a"]]},
            "the task's labels are no list of pairs of a label and its words",
        ),
        ({**CONTENT, "labels": [["a", "b"], ["a", "c"]]}, "the task has two labels of one name"),
        ({**CONTENT, "columns": [1]}, "the task's columns are no mapping of fields to names"),
    ],
)
def test_what_is_no_record_is_refused(content, message):
    assert refusal(TaskRecord.from_dict, content) == message
