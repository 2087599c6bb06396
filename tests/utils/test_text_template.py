"""Slots are names of columns, whatever characters they hold; nothing else is obeyed."""

import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from palam.utils.text_template import fill, slots

NAMES = st.text(st.characters(exclude_characters="{}"))
TEXTS = st.text()


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{text}", {"text"}),
        ("Title: {title} Body: {body}", {"title", "body"}),
        ("{review.text} {0} {a[0]} {a!r} {a:>9}", {"review.text", "0", "a[0]", "a!r", "a:>9"}),
        ("{{text}}", set()),
        ("{{{text}}}", {"text"}),
        ("{}", {""}),
        ("", set()),
    ],
)
def test_slots(template, names):
    assert slots(template) == names
    fields = {name: f"<{name}>" for name in names}
    expected = template
    for name, value in fields.items():
        expected = expected.replace(f"{{{name}}}", value)
    assert fill(template, fields) == expected.replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize("template", ["{text", "text}", "{a{b}}", "{text}}", "{{text}", "}{"])
def test_a_brace_alone_is_refused(template):
    assert "not a format string" in refusal(slots, template)
    assert "not a format string" in refusal(fill, template, {"text": "a"})


def test_what_fills_a_slot_is_not_read_again():
    assert fill("{a}{b}", {"a": "{b}", "b": "{{"}) == "{b}{{"


def test_a_slot_that_nothing_fills():
    assert "has a slot {b}" in refusal(fill, "{a}{b}", {"a": ""})


def test_a_width_makes_no_long_text():
    assert fill("{text:>1000000000}", {"text:>1000000000": "a"}) == "a"
    assert "nothing fills" in refusal(fill, "{text:>1000000000}", {"text": "a"})


@given(st.lists(st.tuples(TEXTS, NAMES, TEXTS)))
def test_any_name_and_any_text_come_out_as_they_are(parts):
    fields = {name: text for _, name, text in parts}
    template = ""
    expected = ""
    for literal, name, _ in parts:
        template += literal.replace("{", "{{").replace("}", "}}") + f"{{{name}}}"
        expected += literal + fields[name]
    assert slots(template) == set(fields)
    assert fill(template, fields) == expected
