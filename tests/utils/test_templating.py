"""Templates are found beside the code that uses them, and HTML is escaped."""

import jinja2
import pytest

from palam.utils.templating import render, table_cell, to_json


class Room:
    """A package with templates of its own."""

    def __init__(self, folder):
        self.name = folder.name
        self.templates = folder / "templates"
        self.templates.mkdir(parents=True)
        (folder / "__init__.py").write_text("")

    def write(self, name, text):
        (self.templates / name).write_text(text, encoding="utf-8")

    def render(self, name, **values):
        return render(self.name, name, **values)


@pytest.fixture
def room(request, tmp_path, monkeypatch):
    """A room with a name of its own, for what is found in a package is kept."""
    monkeypatch.syspath_prepend(tmp_path)
    return Room(tmp_path / f"room_of_{request.node.name}")


def test_only_html_is_escaped(room):
    for name in ("a.html.j2", "a.md.j2"):
        room.write(name, "{{ text }}\n")
    assert room.render("a.html.j2", text="<b> & c") == "&lt;b&gt; &amp; c\n"
    assert room.render("a.md.j2", text="<b> & c") == "<b> & c\n"


def test_a_rooms_page_extends_the_shared_one(room):
    room.write("a.html.j2", '{% extends "page.html.j2" %}')
    assert "<html" in room.render("a.html.j2")
    room.write("b.md.j2", '{% from "heatmap.html.j2" import heatmap %}{{ heatmap is callable }}')
    assert room.render("b.md.j2") == "True"


def test_what_is_missing_is_an_error(room):
    room.write("a.md.j2", "{{ text }}")
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        room.render("a.md.j2")
    with pytest.raises(jinja2.TemplateNotFound, match=r"none\.md\.j2"):
        room.render("none.md.j2")


def test_filters(room):
    room.write("a.md.j2", "{{ text | cell }} {{ text | json }}")
    assert room.render("a.md.j2", text="ක|\n") == 'ක\\|  "ක|\\n"'
    assert table_cell(3) == "3"
    assert to_json(["සි", None]) == '["සි", null]'
