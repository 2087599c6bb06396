"""Templates are found beside the code that uses them, and HTML is escaped."""

import sys

import jinja2
import pytest

from palam.utils.templating import render, table_cell, to_json


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package with templates of its own; returns a function that writes one."""
    package = tmp_path / "some_room"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_room", raising=False)

    def write(name, text):
        (package / "templates" / name).write_text(text, encoding="utf-8")

    return write


def test_only_html_is_escaped(room):
    for name in ("a.html.j2", "a.md.j2"):
        room(name, "{{ text }}\n")
    assert render("some_room", "a.html.j2", text="<b> & c") == "&lt;b&gt; &amp; c\n"
    assert render("some_room", "a.md.j2", text="<b> & c") == "<b> & c\n"


def test_a_rooms_page_extends_the_shared_one(room):
    room("a.html.j2", '{% extends "page.html.j2" %}')
    assert "<html" in render("some_room", "a.html.j2")
    room("b.md.j2", '{% from "heatmap.html.j2" import heatmap %}{{ heatmap is callable }}')
    assert render("some_room", "b.md.j2") == "True"


def test_what_is_missing_is_an_error(room):
    room("a.md.j2", "{{ text }}")
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        render("some_room", "a.md.j2")
    with pytest.raises(jinja2.TemplateNotFound, match=r"none\.md\.j2"):
        render("some_room", "none.md.j2")


def test_filters(room):
    room("a.md.j2", "{{ text | cell }} {{ text | json }}")
    assert render("some_room", "a.md.j2", text="ක|\n") == 'ක\\|  "ක|\\n"'
    assert table_cell(3) == "3"
    assert to_json(["සි", None]) == '["සි", null]'
