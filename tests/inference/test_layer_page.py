"""Layer weights shown: the terminal's table, the page, and files written whole or not at all."""

import json
from html.parser import HTMLParser

import pytest
import torch
from rich.console import Console

from palam.errors import PalamError
from palam.inference.layer_page import check_path, is_even, save, table
from palam.inference.layer_weights import LayerView

HOSTILE = "<script>alert('x')</script> & [bold]$x^2$"


def view_of(tokens=("<s>", "▁ගෙදර", HOSTILE), layers=3, language="sin_Sinh", text=HOSTILE):
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(len(tokens), layers), -1)
    norms = 1 + torch.rand(len(tokens), layers)
    return LayerView(text, list(tokens), weights, norms, language)


def printed(view):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(view))
    return capture.get().splitlines()


def test_the_table_shows_every_share_and_the_means():
    weights = torch.tensor([[0.5, 0.5], [0.8, 0.2]])
    norms = torch.tensor([[1.0, 4.0], [2.0, 2.0]])
    lines = [line.split() for line in printed(LayerView("t", ["[red]a", "b"], weights, norms))]
    assert ["[red]a", "20", "80"] in lines
    assert ["b", "80", "20"] in lines
    assert ["mean", "weight", "×", "norm", "50", "50"] in lines
    assert ["mean", "weight", "65", "35"] in lines


def test_the_json_file_holds_the_view(tmp_path):
    view = view_of(layers=12)
    save(view, tmp_path / "view.json")
    again = LayerView.from_dict(json.loads((tmp_path / "view.json").read_text(encoding="utf-8")))
    assert (again.text, again.tokens, again.language) == (view.text, view.tokens, view.language)
    assert torch.equal(again.weights, view.weights)
    assert torch.equal(again.norms, view.norms)


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.cells.append(data)


def test_the_page_holds_both_maps_and_escapes(tmp_path):
    view = view_of()
    save(view, tmp_path / "view.html")
    page = Cells()
    page.feed((tmp_path / "view.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.cells.count(HOSTILE) == 3  # the text, and a token in each map
    assert page.cells.count("▁ගෙදර") == 2
    assert {"lang": "si-Sinh"} in [attributes for tag, attributes in page.tags if tag == "bdi"]
    for values in (view.weights, view.shares):
        for value in values.flatten().tolist():
            shown = f"{100 * value:.1f}" if value < 0.0995 else f"{100 * value:.0f}"
            assert shown in page.cells


@pytest.mark.parametrize("name", ["view.pdf", "view", "view.html.bak", "view.png"])
def test_another_suffix_is_refused_in_one_line(tmp_path, name):
    for act in (check_path, lambda path: save(view_of(), path)):
        with pytest.raises(PalamError, match=r"saved as \.html, \.json") as raised:
            act(tmp_path / name)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "view.json"
    target.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palam.utils.files.os.fsync", full)
    with pytest.raises(PalamError, match="No space left"):
        save(view_of(), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_hold_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "file" / "view.json", tmp_path / "folder.json"):
        with pytest.raises(PalamError, match=r"cannot be written|give a file"):
            save(view_of(), path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


def test_unpaired_surrogates_do_no_harm(tmp_path, tiny_model):
    view = LayerView.of(tiny_model("bert", fusion="mean"), "a \ud800 b")
    save(view, tmp_path / "view.json")
    saved = json.loads((tmp_path / "view.json").read_text(encoding="utf-8"))
    assert saved["text"] == "a \ufffd b"


def test_layers_are_even_if_none_stands_out():
    assert is_even([0.25, 0.26, 0.25, 0.24])
    assert not is_even([0.25, 0.27, 0.25, 0.23])
