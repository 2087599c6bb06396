"""`palam report`: the results of a benchmark as Markdown, LaTeX and a page."""

import html
import re
from dataclasses import replace

import pytest
import yaml
from helpers import read_jsonl, write_jsonl

from palam.bench.language_groups import language_groups
from palam.bench.report import render_summary, summary
from palam.tasks.registry import get_task


def line_of(text, start):
    """The first line that begins so."""
    return next(line for line in text.splitlines() if line.startswith(start))


def test_the_report_in_markdown(results, palam):
    cells = read_jsonl(results / "out" / "cells.jsonl")
    result = palam("report", results / "out")
    assert result.code == 0
    row = line_of(result.out, "| Sinhala |")
    values = [float(cell.strip(" *")) for cell in row.split("|")[3:-1]]
    methods = dict.fromkeys(cell["method"] for cell in cells)
    for value, name in zip(values, methods, strict=True):
        own = [cell for cell in cells if cell["method"] == name]
        seeds = [100 * cell["results"]["sin_Sinh"] for cell in own]
        assert value == pytest.approx(sum(seeds) / len(seeds), abs=0.051)
    assert "**" in row
    assert f"| last | si | 71.7 | {values[0]:.1f} |" in result.out


def test_a_learning_curve_ends_at_the_results(results, palam):
    cells = read_jsonl(results / "out" / "cells.jsonl")
    own = [cell for cell in cells if cell["method"] == "mean"]
    end = sum(100 * cell["results"]["sin_Sinh"] for cell in own) / len(own)
    line = line_of(palam("report", results / "out").out, "- mean: ")
    last = f"{end:.1f} at step {own[0]['steps']}"
    assert re.fullmatch(rf"- mean: \S+ at step 0, \S+ at step 3, {last}", line)


def test_a_curve_of_one_seed_ends_at_the_results_of_that_seed(again, palam):
    out = again / "out"
    points = read_jsonl(out / "curve.jsonl")
    write_jsonl(out / "curve.jsonl", [point for point in points if point["seed"] != 1])
    cells = read_jsonl(out / "cells.jsonl")
    cell = next(cell for cell in cells if (cell["method"], cell["seed"]) == ("mean", 0))
    line = line_of(palam("report", out).out, "- mean: ")
    assert line.endswith(f"{100 * cell['results']['sin_Sinh']:.1f} at step {cell['steps']}")


def test_the_report_in_latex(results, palam):
    latex = palam("report", results / "out", "--latex").out
    assert latex.count(r" \\") == 1 + 2 + 1
    assert r"\begin{tabular}{lrrrrrrrr}" in latex


def test_the_report_as_a_page(results, palam, tmp_path):
    assert palam("report", results / "out", "--html", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 6 + 1
    assert not re.search(r'(?:src|href)="|https?:', page)
    cells = read_jsonl(results / "out" / "cells.jsonl")
    layers = next(cell["layers"] for cell in cells if cell["method"] == "mean")
    assert layers.keys() == {"sin_Sinh", "eng_Latn"}
    assert [sum(shares) for shares in layers.values()] == pytest.approx([1, 1])
    # Of `mean` all layers are alike; `last` has one layer, the LoRA none.
    assert page.count('<table class="heat">') == 0
    assert "contribute nearly alike, by design or by training, in mean" in page
    cell = next(cell for cell in cells if cell["method"] == "mean")
    assert f"{cell['layers']['sin_Sinh'][0]:.2f}" == "0.33"


def test_the_lead_does_not_repeat_the_title(results):
    found = replace(summary(results / "out"), title="sib200, split dev")
    lead = "Trained on English sib200, read in 2 languages."
    assert f'<h1>sib200, split dev</h1>\n<p class="lead">{lead}</p>' in render_summary(
        found, "html"
    )
    assert render_summary(found).startswith(f"# sib200, split dev\n\n{lead} Accuracy in percent")
    titled = replace(found, title="Topics", languages=found.languages[:1])
    lead = "sib200, split dev: trained on English sib200, read in one language."
    assert f'<p class="lead">{lead}</p>' in render_summary(titled, "html")


def test_one_right_answer_is_worth_a_point_of_so_many(results):
    found = summary(results / "out")
    for form in ("md", "html"):
        worth = f"is worth {100 / found.fewest:.1f} points there"
        assert worth in render_summary(found, form)


def test_layers_that_differ_are_drawn(again, palam):
    out = again / "out"
    cells = read_jsonl(out / "cells.jsonl")
    for cell in cells:
        if cell["method"] == "mean":
            cell["layers"] = {code: [0.2, 0.3, 0.5] for code in cell["layers"]}
    write_jsonl(out / "cells.jsonl", cells)
    assert palam("report", out, "--html", again / "page.html").code == 0
    page = (again / "page.html").read_text()
    assert page.count('<table class="heat">') == 1
    assert "nearly alike" not in page


def test_the_page_says_what_each_method_is(results, palam, tmp_path):
    assert palam("report", results / "out", "--html", tmp_path / "page.html").code == 0
    page = html.unescape((tmp_path / "page.html").read_text())
    for name, text in {
        "last": "A bridge. LangBridge's choice (ACL 2024): the encoder's last layer alone.",
        "mean": "Its mapper starts at random, not solved. Average weights from: 0.2.",
        "lora": "A LoRA of rank 2 is trained on the LLM, which reads the text itself.",
        "most": "Always the most frequent label",
        "LLM alone": "The LLM reads the text itself, without a bridge.",
        "translated": "The LLM reads a translation into English, by nllb.",
        "head": "Logistic regression on the mean of the encoder's layers",
    }.items():
        assert text in page.partition(f"<dt>{name}</dt>")[2].partition("</dd>")[0]


def test_a_baseline_does_not_stretch_the_axis(again, palam):
    out = again / "out"
    found = summary(out)
    method = next(method for method in found.methods if method.name == "mean")
    ends = [abs(end) for item in method.differences.values() for end in item.ci95]
    assert found.span == max(0.05, *ends)
    far = replace(next(iter(method.differences.values())), mean=-0.9, ci95=(-0.95, -0.85))
    methods = []
    for item in found.methods:
        if item.name == "most":
            item = replace(item, differences=dict.fromkeys(item.differences, far))
        if item.name == "mean":
            near = replace(far, mean=0.01, ci95=(-0.02, 0.03))
            item = replace(item, differences=dict.fromkeys(item.differences, near))
        methods.append(item)
    changed = replace(found, methods=methods)
    assert changed.span == 0.05
    page = render_summary(changed, "html")
    assert page.count(">-90.0</text>") == 2  # both languages of the baseline, at the edge
    for x1, x2 in re.findall(r'class="range" x1="([\d.]+)" x2="([\d.]+)"', page):
        assert 120 <= float(x1) <= float(x2) <= 296


def test_many_methods_stand_in_several_tables(results):
    found = summary(results / "out")
    many = replace(found, methods=found.methods * 2)
    assert [len(methods) for methods in many.tables] == [7, 7]
    page = render_summary(many, "html")
    assert page.count('aria-label="Accuracy by language') == 2
    assert [len(methods) for methods in found.tables] == [7]


def test_the_means_of_many_languages_stand_before_them(again, palam):
    out = again / "out"
    others = [code for code in get_task("sib200").languages if code != "eng_Latn"]
    codes = ["eng_Latn", *others[:40]]
    for file in (out / "predictions").iterdir():
        rows = [row for row in read_jsonl(file) if row["language"] == "sin_Sinh"]
        write_jsonl(file, [row | {"language": code} for code in codes for row in rows])
    (out / "curve.jsonl").unlink()
    lines = palam("report", out).out.splitlines()
    means = next(i for i, line in enumerate(lines) if line.startswith("| mean without English |"))
    assert lines[means].startswith("| mean without English | 40 |")
    english = next(i for i, line in enumerate(lines) if line.startswith("| English |"))
    assert means < lines.index("## Against last, mean without English") < english
    assert palam("report", out, "--html", again / "page.html").code == 0
    page = (again / "page.html").read_text()
    assert page.index("mean without English</th><td>40<") < page.index("English <small>eng_Latn<")
    assert ">arb_Latn</text>" in page  # its name would run into the picture
    # A tabular ends with its page.
    assert r"\begin{longtable}{lrrrrrrrr}" in palam("report", out, "--latex").out


def test_the_tests_are_against_the_method_that_is_named(results, palam, refused):
    out = results / "out"
    shown = palam("report", out, "--against", "LLM alone").out
    assert "## Against LLM alone," in shown
    tests = shown.partition("## Against LLM alone,")[2]
    assert line_of(tests, "| last |").count("to") == 1
    assert line_of(tests, "| LLM alone |").count("to") == 0
    message = refused("report", out, "--against", "first")
    assert "against is 'first', which is no method" in message
    assert "there are last, mean, lora, most, LLM alone, translated, head" in message


# --------------------------------------------------------------------------- choices
LOSSES = {
    ("last", 0): 2.0,
    ("mean", 0): 1.0,
    ("lora", 0): 3.0,
    ("last", 1): 1.0,
    ("mean", 1): 2.0,
    ("lora", 1): 3.0,
}
CANDIDATES = ["last", "mean", "lora"]


@pytest.fixture
def with_choice(again):
    """`with_choice(names)`: the recipe, with the method `chosen` among these; LOSSES are set."""
    cells = read_jsonl(again / "out" / "cells.jsonl")
    for cell in cells:
        cell["validation_loss"] = LOSSES.get((cell["method"], cell["seed"]))
    write_jsonl(again / "out" / "cells.jsonl", cells)
    recipe = yaml.safe_load((again / "recipe.yaml").read_text())

    def save(names):
        recipe["methods"]["chosen"] = {"best_of": names}
        (again / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        return again / "recipe.yaml"

    return save


def test_the_method_with_the_lowest_english_loss_is_chosen_for_each_seed(with_choice, again, palam):
    out = again / "out"
    cells = read_jsonl(out / "cells.jsonl")
    assert palam("bench", with_choice(CANDIDATES), "--out", out).code == 0
    assert read_jsonl(out / "cells.jsonl") == cells  # nothing is run for it
    accuracy = {}
    for cell in cells:
        accuracy[cell["method"], cell["seed"]] = 100 * cell["results"]["sin_Sinh"]
    shown = palam("report", out, "--against", "last").out
    assert (
        "chosen is, for each seed, the method with the lowest English validation loss: mean, last."
        in shown
    )
    each = f"{accuracy['mean', 0]:.1f}, {accuracy['last', 1]:.1f}"
    assert f"\n| chosen | {each} |" in shown
    assert palam("report", out, "--html", again / "page.html").code == 0
    page = (again / "page.html").read_text()
    seconds = sum(cell["seconds"] for cell in cells if cell["method"] in CANDIDATES)
    empty = 3 * "<td>–</td>"
    row = re.search(rf'<th scope="row">chosen</th><td>2</td>{empty}<td>(\d+)<', page)
    assert row is not None
    assert abs(int(row[1]) - seconds) <= 0.5 + 1e-6  # the order of a sum decides which way .5 goes


@pytest.mark.parametrize("names", [["last", "most"], ["last", "chosen"], [], "last"])
def test_a_choice_is_among_trained_methods(with_choice, again, refused, names):
    message = refused("bench", with_choice(names), "--out", again / "out")
    assert "a list of trained methods, of: last, mean, lora" in message


# --------------------------------------------------------------------------- groups, mistakes
def test_means_are_shown_by_groups_that_divide_the_languages():
    codes = ["eng_Latn", "sin_Sinh", "swh_Latn", "hin_Deva", "yor_Latn"]
    groups = {group.name: group.codes for group in language_groups(codes)}
    assert groups == {
        "mean without English": ["sin_Sinh", "swh_Latn", "hin_Deva", "yor_Latn"],
        "mean, Latin script": ["swh_Latn", "yor_Latn"],
        "mean, other scripts": ["sin_Sinh", "hin_Deva"],
        "mean, high-resource": ["hin_Deva"],
        "mean, low-resource": ["sin_Sinh", "swh_Latn", "yor_Latn"],
        "mean, in XLM-R's training data": ["sin_Sinh", "swh_Latn", "hin_Deva"],
        "mean, not in XLM-R's training data": ["yor_Latn"],
    }
    assert [group.name for group in language_groups(["si", "ta"])] == ["mean without English"]


def test_a_folder_without_results(refused, tmp_path):
    assert "holds no results" in refused("report", tmp_path)
