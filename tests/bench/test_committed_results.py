"""The tables of docs/results.md are compared with the committed results that they are from.

Above each table a comment names its run: `<!-- run: benchmarks/results/sib200 -->`.
"""

import json
import re
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from palam.bench.pack import summary_content
from palam.bench.predictions import Run
from palam.bench.report import summary
from palam.bench.results import ResultsFolder
from palam.bench.statistics import Answers, compare
from palam.utils.languages import resolve_language

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
FOLDERS = sorted(path.parent.name for path in RESULTS.glob("*/recipe.yaml"))
IN_SHORT = {
    "SIB-200": "sib200",
    "Sinhala news": "sinhala_news",
    "NewsFirst": "newsfirst",
    "tweet sentiment": "tweet_sentiment",
    "XNLI": "xnli",
}
"""The five tasks of the headline tables, by what the page calls them."""
HALF = 0.0501
"""Of the last digit of a percentage, which has one decimal."""


class Table(NamedTuple):
    """A Markdown table."""

    run: str
    """The run that the comment above it names."""
    header: list[str]
    rows: list[list[str]]

    def columns(self, row):
        """A row's cells by their column."""
        return dict(zip(self.header, row, strict=True))


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_tables():
    """The page's tables that have a comment with a run."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    tables = []
    for number, line in enumerate(lines):
        comment = re.fullmatch(r"<!-- runs?: (.+) -->", line)
        if comment is None:
            continue
        end = number + 1
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        header, _, *rows = (cells_of(row) for row in lines[number + 1 : end])
        run = comment[1].removeprefix("benchmarks/results/")
        tables.append(Table(run, header, rows))
    return tables


TABLES = {table.run: table for table in read_tables() if " and " not in table.run}
HEADLINES = [table for table in read_tables() if " and " in table.run]


@pytest.fixture(scope="module")
def figures():
    """`figures("sib200")`: the content of its `summary.json`."""

    def load(folder):
        return json.loads((RESULTS / folder / "summary.json").read_text(encoding="utf-8"))

    return load


# ---------------------------------------------------------------------- what a row is of
def method_of(first_cell, start=""):
    """The recipe's name of a row's method.

    Args:
        first_cell: what the page calls it.
        start: `random` or `solve`, if that stands in a column of its own.
    """
    text = first_cell.replace("*", "").replace("`", "")
    named = {
        "of these two": "chosen",
        "the most frequent label": "majority",
        "most frequent label": "majority",
        "head on the last": "head-last",
        "head on the encoder's last": "head-last",
        "head on the mean": "head-mean",
        "the encoder fine-tuned": "finetune",
        "the LLM itself with LoRA": "llm-lora",
        "the LLM itself": "llm-alone",
    }
    for beginning, method in named.items():
        if text.startswith(beginning):
            return method
    fusion = re.match(r"\w+", text)[0]
    if "averaged" in text:
        return f"{fusion}-averaged"
    if "LoRA on the LLM" in text:
        return f"{fusion}-lora"
    return f"{fusion}-random" if start == "random" or "random" in text else fusion


def numbers(cell):
    """The numbers of a cell, each with its own sign."""
    plain = cell.replace("*", "").replace("−", "-")
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?", plain)]


def assert_percent(shown, share, where):
    assert shown == pytest.approx(100 * share, abs=HALF), where


def language_accuracy(method, code):
    """The mean over a method's seeds in one language."""
    languages = next(iter(method["seeds"].values()))
    native = resolve_language(code, list(languages))
    return mean(seed[native]["accuracy"] for seed in method["seeds"].values())


def curve_mean(folder, method, step, codes):
    """The mean over seeds and languages that a method's bridges had after a step."""
    results = ResultsFolder(RESULTS / folder)
    rates = {cell.run: cell.lr for cell in results.cells()}
    shares = [
        mean(point.results[code] for code in codes)
        for point in results.curve_points()
        if point.at == step and point.method == method
        if point.lr == rates[Run(method, point.seed)]
    ]
    return mean(shares)


def check_difference(cell, difference, where):
    """`+2.5 (+1.2 to +3.7), a win`, or the mean alone."""
    shown, *interval = numbers(cell)
    assert_percent(shown, difference["mean"], where)
    if interval:
        assert_percent(interval[0], difference["ci95"][0], where)
        assert_percent(interval[1], difference["ci95"][1], where)


def check_cell(column, cell, method, results, where):
    """One cell of a row against its method's figures.

    Args:
        column: the column's header.
        cell: as the page has it, not empty.
        method: its part of `summary.json`.
        results: the whole `summary.json`.
        where: for messages.
    """
    if column.startswith("mean of the") and "after" in column:
        assert_percent(numbers(cell)[-1], method["mean"], where)
    elif column == "Sinhala" or column.startswith("mean of the"):
        assert_percent(numbers(cell)[0], method["mean"], where)
    elif re.fullmatch("[a-z]{2}", column):
        assert_percent(numbers(cell)[0], language_accuracy(method, column), where)
    elif column == "of each seed":
        shares = method["mean_of_seeds"]
        assert len(numbers(cell)) == len(shares), where
        for shown, share in zip(numbers(cell), shares, strict=True):
            assert_percent(shown, share, where)
    elif column == f"against `{results['against'].split('-')[0]}`, random (95 %)":
        check_difference(cell, method["difference"], where)
    elif column == "wins":
        assert numbers(cell) == [method["wins"], len(method["differences"])], where


def check_rate_and_loss(folder, method, columns, where):
    """The learning rate and the English loss, which `cells.jsonl` has."""
    cells = [cell for cell in ResultsFolder(RESULTS / folder).cells() if cell.method == method]
    if columns.get("rate"):
        assert {cell.lr for cell in cells} == set(numbers(columns["rate"])), where
    losses = numbers(columns.get("English held-out loss", ""))
    measured = [cell.validation_loss for cell in sorted(cells, key=lambda cell: cell.seed)]
    if len(losses) == 1:
        assert losses[0] == pytest.approx(mean(measured), abs=5.01e-4), where
    elif losses:
        assert losses == pytest.approx(measured, abs=5.01e-4), where


# ---------------------------------------------------------------------- the tables
@pytest.mark.parametrize(
    "folder",
    ["sib200", "sinhala_news", "tweet_sentiment", "newsfirst", "amazon_reviews", "xnli"],
)
def test_a_table_of_methods(folder, figures):
    table, results = TABLES[folder], figures(folder)
    for row in table.rows:
        columns = table.columns(row)
        name = method_of(row[0], columns["start"])
        for column, cell in columns.items():
            if cell:
                where = f"{folder}, {name}, {column}"
                check_cell(column, cell, results["methods"][name], results, where)
        check_rate_and_loss(folder, name, columns, f"{folder}, {name}")


def test_the_curve_of_sib200(figures):
    table, results = TABLES["sib200"], figures("sib200")
    codes = results["groups"]["mean without English"]
    for row in table.rows:
        columns = table.columns(row)
        cell = columns["mean of the ten, after 0, 50 and 200 steps"]
        if len(numbers(cell)) == 3:
            name = method_of(row[0], columns["start"])
            for shown, step in zip(numbers(cell), (0, 50), strict=False):
                share = curve_mean("sib200", name, step, codes)
                assert_percent(shown, share, f"{name} at {step}")


def test_the_curve_of_sinhala_news(figures):
    folder = "sinhala_news_curve"
    table, results = TABLES[folder], figures(folder)
    for row in table.rows:
        name = method_of(row[0])
        for step in (0, 50, 200):
            shown = float(table.columns(row)[str(step)])
            assert_percent(shown, curve_mean(folder, name, step, ["si"]), f"{name} at {step}")
        assert_percent(float(row[-1]), results["methods"][name]["mean"], name)


def test_the_table_of_all_languages(figures):
    table, results = TABLES["sib200_all"], figures("sib200_all")
    for row in table.rows:
        group, size, *cells = row
        for column, cell in zip(table.header[2:], cells, strict=True):
            method = results["methods"][method_of(column)]
            if group.startswith("against"):
                if cell:
                    check_difference(cell, method["difference"], column)
                continue
            name = {
                "all but English": "mean without English",
                "not in it": "mean, not in XLM-R's training data",
            }.get(group, f"mean, {group}")
            assert int(size) == len(results["groups"][name])
            assert_percent(numbers(cell)[0], method["groups"][name], f"{group}, {column}")


def test_the_first_table(figures):
    table = HEADLINES[0]
    previous = ""
    for row in table.rows:
        same = row[0].startswith("the same")
        name = f"{previous}-averaged" if same else method_of(row[0])
        previous = name
        shares = []
        for column, cell in zip(table.header[1:-1], row[1:-1], strict=True):
            if cell:
                folder = IN_SHORT[column.split(",")[0]]
                share = figures(folder)["methods"][name]["mean"]
                shares.append(share)
                assert_percent(numbers(cell)[0], share, f"{folder}, {name}")
        if row[-1]:
            assert len(shares) == len(IN_SHORT)
            assert_percent(numbers(row[-1])[0], mean(shares), name)


def test_the_table_of_choices(figures):
    table = HEADLINES[1]
    shares = []
    for row in table.rows:
        columns = table.columns(row)
        if row[0] not in IN_SHORT:
            assert_percent(numbers(columns["result"])[0], mean(shares), row[0])
            continue
        results = figures(IN_SHORT[row[0]])
        method = results["methods"]["chosen"]
        shares.append(method["mean"])
        for column in ("result", "of each seed"):
            renamed = "mean of the five" if column == "result" else column
            check_cell(renamed, columns[column], method, results, f"{row[0]}, {column}")
        check_difference(columns["against `last`"], method["difference"], row[0])
        chosen = {method_of(name) for name in re.findall("`.*?`", columns[table.header[1]])}
        assert {name.split("-")[0] for name in results["choices"]["chosen"]} == chosen


def test_the_table_of_earlier_cells():
    """The runs of before there were recipes, with the seeds of one method and rate as one row."""
    table = TABLES["earlier/sib200.jsonl"]
    lines = (RESULTS / "earlier" / "sib200.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [json.loads(line) for line in lines]
    for row in table.rows:
        columns = table.columns(row)
        key = (method_of(row[0]), columns["start"], float(columns["rate"]))
        seeds = [
            cell["results"]
            for cell in sorted(cells, key=lambda cell: cell["seed"])
            if (cell["method"], cell["start"], cell["lr"]) == key and "results" in cell
        ]
        codes = [code for code in seeds[0] if code != "eng_Latn"]
        means = [mean(seed[code] for code in codes) for seed in seeds]
        for shown, share in zip(numbers(columns["of each seed"]), means, strict=True):
            assert_percent(shown, share, key)
        assert_percent(numbers(columns["mean of the ten"])[0], mean(means), key)
        for column in columns:
            if re.fullmatch("[a-z]{2}", column):
                native = resolve_language(column, list(seeds[0]))
                share = mean(seed[native] for seed in seeds)
                assert_percent(float(columns[column]), share, f"{key}, {column}")


def test_the_llm_on_a_hundred_articles(figures):
    language = figures("newsfirst_llm")["methods"]["llm-alone"]["seeds"]["0"]["si"]
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    sentence = re.search(r"The LLM itself \w+ (\d+) of \[100 [^\]]*\]\S+ [^(]*\(([^)]*)\)", text)
    assert (language["n"], language["correct"]) == (100, int(sentence[1]))
    for shown, end in zip(numbers(sentence[2]), language["ci95"], strict=True):
        assert_percent(shown, end, "its interval")


# ---------------------------------------------------------------------- what is packed
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_packed_predictions_are_those_of_the_cells(folder, figures):
    results = ResultsFolder(RESULTS / folder)
    methods = figures(folder)["methods"]
    for cell in results.cells():
        for code, language in results.predictions(cell.run).items():
            share = language.correct / len(language.labels)
            assert share == pytest.approx(cell.results[code])
            counted = methods[cell.method]["seeds"][str(cell.seed)][code]
            assert (counted["n"], counted["correct"]) == (len(language.labels), language.correct)


def test_a_summary_is_what_the_packed_predictions_come_to(figures):
    folder = RESULTS / "newsfirst_llm"
    content = summary_content(summary(folder), ResultsFolder(folder))
    assert content == figures("newsfirst_llm")


@pytest.mark.parametrize("name", ["last-random", "chosen"])
def test_a_column_against_another_method(name, figures):
    """Against `transformer_softmax`, random: from the packed predictions."""
    if name == "chosen":
        table = HEADLINES[1]
        row = next(row for row in table.rows if row[0] == "NewsFirst")
        cell = table.columns(row)["against `transformer_softmax`"]
        seeds = figures("newsfirst")["choices"]["chosen"]
    else:
        table = TABLES["newsfirst"]
        row = next(row for row in table.rows if row[:2] == ["`last`", "random"])
        cell = table.columns(row)["against `transformer_softmax`, random"]
        seeds = [name] * 3
    results = ResultsFolder(RESULTS / "newsfirst")

    def answers(methods):
        runs = [results.predictions(Run(method, seed))["si"] for seed, method in enumerate(methods)]
        return {"si": Answers(runs[0].rows, runs[0].labels, [run.predictions for run in runs])}

    other = answers(["transformer_softmax-random"] * 3)
    difference = compare(answers(seeds), other, parallel=False).by_language["si"]
    check_difference(cell, {"mean": difference.mean, "ci95": difference.ci95}, name)
    if "a win" in cell:
        assert difference.win
