import re
from html.parser import HTMLParser

import pytest
import torch

from palam.inference.evaluation import wilson
from palam.inference.layer_weights import LayerView
from palam.quickstart.report import write_report
from palam.quickstart.result import QuickstartResult
from palam.utils.languages import find_language

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "<script>alert('x')</script>"
CORRECT = {  # of 35, by language: LLM alone, last, mean
    "eng_Latn": (24, 30, 31),
    "sin_Sinh": (9, 27, 29),
    "amh_Ethi": (5, 26, 25),
    "urd_Arab": (8, 28, 28),
}


def method_result(number, name):
    """One method's results, as an evaluation gives them."""
    results = {}
    for code, correct in CORRECT.items():
        results[code] = {
            "n": 35,
            "accuracy": correct[number] / 35,
            "ci95": list(wilson(correct[number], 35)),
        }
    macro = sum(language["accuracy"] for language in results.values()) / len(results)
    return {"name": name, "results": results, "macro": macro}


def language_entry(code):
    language = find_language(code)
    return {"code": code, "name": language.name, "script": language.script}


def layer_view(code, token):
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    return LayerView("x", ["<s>", token], weights, torch.ones(2, 2), code).to_dict()


def result(**changes):
    """The content of a quickstart's `results.json`."""
    names = ("LLM alone", "last", "mean")
    return {
        "title": "Palam quickstart",
        "data": "demo",
        "n_train": 350,
        "n_test": 35,
        "n_alone": 35,
        "methods": [method_result(number, name) for number, name in enumerate(names)],
        "languages": [language_entry(code) for code in CORRECT],
        "layers": [
            layer_view("eng_Latn", "▁home"),
            layer_view("sin_Sinh", "▁ගෙදර"),
            layer_view("amh_Ethi", "▁ቤት"),
        ],
        "examples": [
            {
                "language": "urd_Arab",
                "text": f"میچ {HOSTILE}",
                "label": "sports",
                "answers": {"LLM alone": "travel", "last": None, "mean": "sports"},
                "english": "The match",
            },
            {
                "language": "sin_Sinh",
                "text": "ගෙදර",
                "label": "travel",
                "answers": {"mean": "travel"},
            },
        ],
        "settings": {"encoder": "some/encoder", "learning_rate": 0.0013},
        "seconds": {"training": 61.27, "reading": 88},
        "command": "palam classify bridge --text 'ගෙදර'",
        **changes,
    }


class Page(HTMLParser):
    """A page whose every tag is closed in its turn.

    Collects the tags with their attributes, and the text outside of the style.
    """

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        content = QuickstartResult.from_dict(result(**changes))
        write_report(content, tmp_path / "report.html")
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def flat(text):
    return " ".join(text.replace("\xa0", " ").split())


def test_every_language_and_number_is_there(written):
    page = Page(written())
    content = result()
    for language in content["languages"]:
        assert language["name"] in page.text
        assert language["code"] in page.text
        assert language["script"] in page.text
    for method in content["methods"]:
        assert f"{100 * method['macro']:.1f}" in page.text
        for language in method["results"].values():
            low, high = language["ci95"]
            interval = f"{100 * low:.1f}–{100 * high:.1f}"
            assert f"{100 * language['accuracy']:.1f}{interval}" in page.text
    for word in (
        "some/encoder",
        "learning rate",
        "0.0013",
        "61.3",
        "88.0",
        "transformers",
        "The match",
        content["command"],
    ):
        assert word in page.text
    # A chart for each language, a key for each method.
    assert len(page.all("svg")) == len(CORRECT) + len(content["methods"])


def test_the_headline_is_computed_from_the_unseen_languages(written):
    text = flat(Page(written()).text)
    assert "Trained on 350 English sentences" in text
    assert (
        "the bridge (mean) names the right topic for 78.1 % of the sentences in 3 languages" in text
    )  # 82 of 105
    assert (
        "The LLM reading them itself is right on 21.0 %; guessing would give 14.3 %" in text
    )  # 22 of 105


def test_the_best_of_each_row_is_bold_and_ties_are_both(written):
    rows = dict(re.findall(r'<tr><th scope="row">(\S+) <small>(.*?)</tr>', written(), flags=re.S))
    assert re.findall(r"<strong>(.*?)</strong>", rows["Sinhala"]) == ["82.9"]
    assert re.findall(r"<strong>(.*?)</strong>", rows["Amharic"]) == ["74.3"]
    assert re.findall(r"<strong>(.*?)</strong>", rows["Urdu"]) == ["80.0", "80.0"]


def test_points_stand_where_their_numbers_say(written):
    source = written()
    chart = source[source.index("Sinhala: percent right") :].split("</svg>")[0]
    ticks = [float(x) for x in re.findall(r'class="grid" x1="([\d.]+)"', chart)]
    start, width = ticks[0], ticks[2] - ticks[0]
    cell = result()["methods"][0]["results"]["sin_Sinh"]
    centre = float(re.search(r'<circle class="k0" cx="([\d.]+)"', chart)[1])
    low, high = map(
        float, re.search(r'class="k0 range" x1="([\d.]+)" x2="([\d.]+)"', chart).groups()
    )
    for x, value in ((centre, cell["accuracy"]), (low, cell["ci95"][0]), (high, cell["ci95"][1])):
        assert (x - start) / width == pytest.approx(value, abs=0.001)
    chance = float(re.search(r'class="chance" x1="([\d.]+)"', chart)[1])
    assert (chance - start) / width == pytest.approx(1 / 7, abs=0.001)


def test_hostile_text_is_escaped(written):
    hostile = dict.fromkeys(("title", "command"), HOSTILE) | {"settings": {HOSTILE: HOSTILE}}
    page = Page(written(**hostile))
    assert not page.all("script")
    assert page.text.count(HOSTILE) == 6  # <title>, h1, command, key and value, example


def test_what_was_read_before_any_training_has_a_section(written):
    reading = {
        "language": "urd_Arab",
        "text": f"میچ {HOSTILE}",
        "english": "The match",
        "bridge": "A match.",
        "llm_alone": "",
    }
    page = Page(written(readings=[reading], examples=[]))
    assert not page.all("script")
    assert {"dir": "auto", "lang": "ur-Arab"} in page.all("blockquote")
    text = flat(page.text)
    section = text[text.index("What the sentences say") : text.index("What was compared")]
    for words in (HOSTILE, "In English: The match", "starter:bridge: A match.", "no answer"):
        assert words in section
    assert "What the sentences say" not in Page(written()).text


def test_nothing_is_fetched(written):
    source = written()
    page = Page(source)
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "xlink:href", "data", "poster"} & set(attributes)
    assert not re.search(r"https?:|@import|url\(", source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object"}


def test_readable_by_machine_and_from_right_to_left(written):
    page = Page(written())
    assert {"lang": "en"} in page.all("html")
    assert {"dir": "auto", "lang": "ur-Arab"} in page.all("blockquote")
    assert all("scope" in attributes for attributes in page.all("th"))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or set(
            attributes["aria-labelledby"].split()
        ) <= set(names)
    text = flat(page.text)
    assert "travel ✗ wrong" in text
    assert "no answer ✗ wrong" in text
    assert "sports ✓ right" in text


def test_only_the_demonstration_says_that_it_is_one(written):
    assert "A demonstration, not a benchmark. The sentences are machine-written" in flat(
        Page(written()).text
    )
    assert "one answer is worth 2.9 points" in flat(Page(written()).text)
    real = flat(Page(written(data="sib200")).text)
    assert "SIB-200" in real
    assert "machine-written" not in real


def test_the_layers_are_summed_up(written):
    assert "Layer 2 counts most, 62 % on average; an even share is 50 %" in flat(
        Page(written()).text
    )
    even = LayerView("x", ["a"], torch.full((1, 4), 0.25), torch.ones(1, 4), "en").to_dict()
    page = Page(written(layers=[even]))
    assert "All layers count nearly alike: about 25 % each" in flat(page.text)
    assert not [tag for tag in page.all("table") if tag.get("class") == "heat"]


def test_it_ends_with_what_to_do_next(written):
    steps = {"label a file": "palam classify b --file x.csv", "try it": "palam classify b"}
    text = flat(Page(written(next_steps=steps)).text)
    ending = text.partition("What to do next")[2]
    assert ending.split() == (
        [
            "Label",
            "a",
            "file",
            "palam",
            "classify",
            "b",
            "--file",
            "x.csv",
            "Try",
            "it",
            "palam",
            "classify",
            "b",
        ]
    )


def test_what_is_missing_is_left_out(written):
    methods = result()["methods"]
    del methods[1]["results"]["amh_Ethi"]
    page = Page(written(methods=methods[:2], layers=[], examples=[], seconds={}))
    assert "Which layers" not in page.text
    assert "Sentences and answers" not in page.text
    assert "Amharic" in page.text
    Page(written(methods=methods[:1], layers=[], examples=[]))
