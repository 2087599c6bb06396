import importlib.util
import json
import math
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import tiny
import torch
from rich.console import Console

from palam.errors import PalamError
from palam.inference.layer_weights import LayerView, check_path, layer_weights, save, table
from palam.models.fusion import FUSIONS

HOSTILE = "<script>alert('x')</script> & [bold]$x^2$"


def view(tokens=("<s>", "▁ගෙදර", HOSTILE), layers=3, language="sin_Sinh", text=HOSTILE):
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(len(tokens), layers), -1)
    return LayerView(text, list(tokens), weights, 1 + torch.rand(len(tokens), layers), language)


def printed(of):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(of))
    return capture.get().splitlines()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_layer_weights_of_a_text(tiny_model, fusion):
    model = tiny_model("xlmr", fusion=fusion, normalize="layer").train()
    tokens, weights, norms = layer_weights(model, "I am going home.")
    assert tokens[0] == "<s>"
    assert tokens[-1] == "</s>"
    assert weights.shape == norms.shape == (len(tokens), tiny.LAYERS)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(tokens)))
    torch.testing.assert_close(
        norms, torch.full_like(norms, math.sqrt(32)), rtol=1e-3, atol=0
    )  # layer-normalised
    if fusion == "last":
        assert weights[:, -1].tolist() == [1] * len(tokens)
    assert model.bridge.training


def test_of_reads_what_the_model_gives(tiny_model):
    model = tiny_model("bert", fusion="transformer_softmax")
    tokens, weights, norms = layer_weights(model, "The quick fox")
    found = LayerView.of(model, "The quick fox", "en")
    assert (found.text, found.tokens, found.language) == ("The quick fox", tokens, "en")
    assert torch.equal(found.weights, weights)
    assert torch.equal(found.norms, norms)


def test_byte_level_tokens_are_shown_as_characters(monkeypatch):
    tokenizer = tiny.fast(tiny.byte_bpe(["<s>"], bos="<s>"), bos_token="<s>")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ම a")["input_ids"])
    ones = torch.ones(len(tokens), 2)
    monkeypatch.setattr(
        "palam.inference.layer_weights.layer_weights",
        lambda model, text, language: (tokens, ones, ones),
    )
    model = SimpleNamespace(processor=SimpleNamespace(encoder_tokenizer=tokenizer))
    assert tokens == ["<s>", "à¶¸", "Ġa"]
    assert LayerView.of(model, "ම a").tokens == ["<s>", "ම", "▁a"]


def test_shares_are_weight_times_norm_of_each_token():
    one = LayerView(
        "t",
        ["a", "b"],
        torch.tensor([[0.5, 0.5], [1.0, 0.0]]),
        torch.tensor([[1.0, 3.0], [0.0, 7.0]]),
    )
    assert one.shares.tolist() == [[0.25, 0.75], [0.0, 0.0]]  # no division by zero


def test_the_table_shows_every_share_and_the_means():
    one = LayerView(
        "t",
        ["[red]a", "b"],
        torch.tensor([[0.5, 0.5], [0.8, 0.2]]),
        torch.tensor([[1.0, 4.0], [2.0, 2.0]]),
    )
    lines = [line.split() for line in printed(one)]
    assert ["[red]a", "20", "80"] in lines
    assert ["b", "80", "20"] in lines
    assert ["mean", "weight", "×", "norm", "50", "50"] in lines
    assert ["mean", "weight", "65", "35"] in lines


def test_json_round_trip(tmp_path):
    one = view(layers=12)
    save(one, tmp_path / "view.json")
    again = LayerView.from_dict(json.loads((tmp_path / "view.json").read_text(encoding="utf-8")))
    assert (again.text, again.tokens, again.language) == (one.text, one.tokens, one.language)
    assert torch.equal(again.weights, one.weights)
    assert torch.equal(again.norms, one.norms)


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.cells.append(data)


def test_the_page_holds_both_maps_and_escapes(tmp_path):
    one = view()
    save(one, tmp_path / "view.html")
    page = Cells()
    page.feed((tmp_path / "view.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.cells.count(HOSTILE) == 3  # the text, and a token in each map
    assert page.cells.count("▁ගෙදර") == 2
    assert {"lang": "si-Sinh"} in [attributes for tag, attributes in page.tags if tag == "bdi"]
    for values in (one.weights, one.shares):
        for value in values.flatten().tolist():
            assert (f"{100 * value:.1f}" if value < 0.0995 else f"{100 * value:.0f}") in page.cells


@pytest.mark.parametrize("text", ["home", "ගෙදර"])
def test_the_picture_has_pixels(tmp_path, text):
    image_module = pytest.importorskip("PIL.Image")
    save(view(("<s>", text, "$a$", "بيت"), layers=4), tmp_path / "view.png")
    with image_module.open(tmp_path / "view.png") as image:
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_a_picture_names_only_tokens_that_it_can_draw(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    drawn = Figure.savefig

    def spy(figure, *arguments, **options):
        seen.extend(
            [label.get_text() for label in figure.axes[0].get_yticklabels()]
            + [figure.get_supxlabel()]
        )
        return drawn(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    save(view(("▁home", "ගෙදර", "بيت", "$a$")), tmp_path / "view.png")
    assert seen[:4] == ["1  ▁home", "2", "3", "4  $a$"]
    assert "script" in seen[4]
    seen.clear()
    save(view(("▁home",)), tmp_path / "view.png")
    assert "script" not in seen[-1]


def test_a_picture_needs_no_pyplot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    save(view(), tmp_path / "view.png")
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    spec = importlib.util.find_spec("palam.inference.layer_weights")
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)  # imported without it
    with pytest.raises(PalamError, match=r'pip install "palam\[plot\]"'):
        fresh.save(view(), tmp_path / "view.png")
    fresh.save(view(), tmp_path / "view.html")
    assert [path.name for path in tmp_path.iterdir()] == ["view.html"]


@pytest.mark.parametrize("name", ["view.pdf", "view", "view.html.bak"])
def test_another_suffix_is_refused_in_one_line(tmp_path, name):
    for act in (check_path, lambda path: save(view(), path)):
        with pytest.raises(PalamError, match=r"\.png, \.html, \.json") as raised:
            act(tmp_path / name)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "view.json"
    target.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palam.inference.layer_weights.os.fsync", full)
    with pytest.raises(PalamError, match="No space left"):
        save(view(), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_hold_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "file" / "view.json", tmp_path / "folder.json"):
        with pytest.raises(PalamError, match="cannot be written"):
            save(view(), path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


def test_unpaired_surrogates_do_no_harm(tmp_path, tiny_model):
    save(LayerView.of(tiny_model("bert", fusion="mean"), "a \ud800 b"), tmp_path / "view.json")
    assert json.loads((tmp_path / "view.json").read_text(encoding="utf-8"))["text"] == "a \ufffd b"
