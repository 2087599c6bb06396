"""The tables of docs/general_bridge.md are compared with the figures that were kept."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

from palam.utils.languages import resolve_language

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "general_bridge.md").read_text(encoding="utf-8")
FIGURES = json.loads((ROOT / "benchmarks" / "general_bridge.json").read_text(encoding="utf-8"))
HALF = 0.0501
"""Of the last digit of a figure with one decimal."""
TOPICS = "before words of other languages"
TEXTS = "before it learned topics"
LORA = "with a LoRA of rank 16 on the LLM"
LONGER = "with the LoRA, 450 steps more on lines of 12 to 45 words"
SAID_ONCE = "reading, no three tokens said twice"
GUIDED = "reading, guided (scale 1.5, fp32)"
BEST_OF = "reading, guided, best of 8"
BEST_OF_SIXTEEN = "reading, guided, best of 16"
BEST_OF_MANY = "reading, guided, best of 24"


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables_below(heading):
    """The tables of a section, each as a list of rows."""
    section = re.split(rf"^#+ {re.escape(heading)}$", PAGE, flags=re.M)[1]
    section = re.split(r"^#+ ", section, flags=re.M)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    return [[cells_of(line) for line in table.splitlines()] for table in tables]


def row_of(table, beginning):
    """The cells of the row whose first cell begins so, after this cell."""
    (row,) = [row for row in table if row[0].strip("*").startswith(beginning)]
    return row[1:]


def numbers(cells):
    """The number of each cell that has one."""
    found = [re.findall(r"-?\d+(?:\.\d+)?", cell) for cell in cells]
    return [float(each[0]) for each in found if each]


def native(code, values):
    return values[resolve_language(code, list(values))]


def by_language(table, values):
    """A figure's values in the order of a table's columns, without a last column of means."""
    codes = [code for code in table[0][1:] if re.fullmatch("[a-z]{2}", code)]
    return [native(code, values) for code in codes]


def of_reading(readings, name, scale=1.0):
    return {code: scale * reading[name] for code, reading in readings.items()}


def means_of_readings(part):
    """Recall in %, chrF, and identification in %, in the mean of a part's languages."""
    readings = FIGURES[part].values()
    return [
        scale * mean(reading[name] for reading in readings)
        for name, scale in (("recall", 100), ("chrf", 1), ("identified", 100))
    ]


def assert_row(table, beginning, values):
    """A row's figures by language, and their mean behind them."""
    shown = numbers(row_of(table, beginning))
    expected = by_language(table, values)
    assert shown == pytest.approx([*expected, mean(expected)], abs=HALF), beginning


@pytest.mark.parametrize(
    ("beginning", "part", "name", "scale"),
    [
        ("best of twenty-four, guided: content-word recall", BEST_OF_MANY, "recall", 100),
        ("best of twenty-four: chrF", BEST_OF_MANY, "chrf", 1),
        ("best of twenty-four: identified", BEST_OF_MANY, "identified", 100),
        ("best of eight, guided: content-word recall", BEST_OF, "recall", 100),
        ("best of eight: chrF", BEST_OF, "chrf", 1),
        ("best of eight: identified", BEST_OF, "identified", 100),
        ("guided: content-word recall", GUIDED, "recall", 100),
        ("guided: chrF", GUIDED, "chrf", 1),
        ("guided: identified", GUIDED, "identified", 100),
        ("content-word recall", "reading", "recall", 100),
        ("the same with seed 1", "reading, seed 1 in the second part", "recall", 100),
        ("with seed 2", "reading, seed 2 in the second part", "recall", 100),
        ("chrF", "reading", "chrf", 1),
        ("identified", "reading", "identified", 100),
    ],
)
def test_what_the_bridge_reads(beginning, part, name, scale):
    table = tables_below("What it reaches")[0]
    assert_row(table, beginning, of_reading(FIGURES[part], name, scale))


def test_what_else_is_measured_of_it():
    table = tables_below("What it reaches")[0]
    for beginning, part in (
        ("likeliest", "likeliest of twenty (40 rows)"),
        ("own questions", "questions (100 rows)"),
    ):
        shares = {code: 100 * share for code, share in FIGURES[part].items()}
        assert_row(table, beginning, shares)
    for beginning, part in (
        ("its 95 %", "reading"),
        ("guided: its 95 %", GUIDED),
        ("best of twenty-four: its 95 %", BEST_OF_MANY),
        ("best of eight: its 95 %", BEST_OF),
    ):
        ends = row_of(table, beginning)
        for code, cell in zip(table[0][1:7], ends, strict=False):
            low, high = native(code, FIGURES[part])["ci95"]
            assert numbers(cell.split("–")) == pytest.approx([100 * low, 100 * high], abs=HALF)


def test_what_it_is_compared_with():
    table = tables_below("What it reaches")[1]
    for beginning, part in (
        ("`starter:bridge`, guided, the best of twenty-four", BEST_OF_MANY),
        ("`starter:bridge`, guided, the best of eight", BEST_OF),
        ("`starter:bridge`, guided", GUIDED),
    ):
        means = means_of_readings(part)
        (row,) = [row for row in table if row[0] == beginning]
        assert numbers(row[1:]) == pytest.approx(means, abs=HALF)
    rows = {
        "the answers to other sentences": "answers to other texts",
        "an unrelated": "an unrelated sentence",
        "the text itself": "the text, copied",
        "the LLM alone": "the LLM alone",
        "the English sentence": "nearest for the encoder",
    }
    for beginning, name in rows.items():
        readings = FIGURES["beside it"][name].values()
        expected = []
        for figure, scale in (("recall", 100), ("chrf", 1), ("identified", 100)):
            known = [scale * reading[figure] for reading in readings if figure in reading]
            if known:
                expected.append(mean(known))
        assert numbers(row_of(table, beginning)) == pytest.approx(expected, abs=HALF), beginning


def test_more_answers_are_compared_with_fewer():
    section = PAGE.split("### The best of several answers")[1].split("\n### ")[0]
    (sentence,) = re.findall(r"With twenty-four answers .*?own sentence", section, re.S)
    shown = numbers(re.findall(r"[-+]?\d+\.\d", sentence))
    of_guided = FIGURES[f"{BEST_OF_MANY}, difference to guided (95 %)"]
    of_eight = FIGURES[f"{BEST_OF_MANY}, difference to best of 8 (95 %)"]
    recall, chrf, identified = means_of_readings(BEST_OF_MANY)
    expected = [recall, *of_guided["recall"], *of_eight["recall"]]
    expected += [chrf, *of_guided["chrf"], *of_eight["chrf"], identified]
    assert shown == pytest.approx(expected, abs=0.0551)  # of figures with two decimals
    (sentence,) = re.findall(r"With sixteen .*? and \d+\.\d %", section, re.S)
    shown = numbers(re.findall(r"\d+\.\d", sentence))
    assert shown == pytest.approx(means_of_readings(BEST_OF_SIXTEEN), abs=HALF)


@pytest.mark.parametrize("scale", ["1", "1.25", "1.5", "2"])
def test_scales_of_guidance(scale):
    figures = FIGURES["guidance by scale"]
    (row,) = [
        row for row in tables_below("Guidance")[0] if row[0].strip("*").split(" ")[0] == scale
    ]
    expected = [number for by_scale in figures.values() for number in by_scale.get(scale, [])]
    assert numbers(row[1:]) == expected


def test_the_best_of_several_answers():
    figures = FIGURES["best of several answers"]
    table = tables_below("The best of several answers")[0]
    for name, expected in figures["six languages, recall and chrF, 15 rows"].items():
        assert numbers(row_of(table, name)) == expected
    section = PAGE.split("### The best of several answers")[1].split("\n### ")[0]
    by_temperature = figures["english, chrF and recall by temperature, 40 rows"]
    for place in (0, 1):
        greedy, *others = [str(values[place]) for values in by_temperature.values()]
        listed = f"{', '.join(others[:-1])} and {others[-1]}"
        assert greedy in section
        assert listed in " ".join(section.split())


@pytest.mark.parametrize(
    ("beginning", "part", "losses"),
    [
        ("texts alone", TEXTS, "validation loss by step"),
        ("then topics", TOPICS, None),
        (
            "in its place topics",
            None,
            "validation loss by step, topics and words of other languages",
        ),
        ("in its place the same", LORA, "validation loss by step"),
    ],
)
def test_what_each_part_of_the_training_added(beginning, part, losses):
    row = numbers(row_of(tables_below("What each part of the training added")[0], beginning))
    figures = FIGURES if part is None else FIGURES[part]
    loss, *others = row
    if losses:
        curve = (FIGURES if part != LORA else figures)[losses]
        assert loss == pytest.approx(list(curve.values())[-1], abs=6e-4)
    sib = {code: 100 * share for code, share in figures["sib200, no task training"].items()}
    english = sib.pop("eng_Latn")
    questions = figures["questions (100 rows)"]
    expected = [
        100 * mean(reading["recall"] for reading in figures["reading"].values()),
        mean(reading["chrf"] for reading in figures["reading"].values()),
        100 * mean(share for code, share in questions.items() if code != "eng_Latn"),
        english,
        mean(sib.values()),
    ]
    assert others == pytest.approx(expected, abs=HALF)


def test_labels_without_training_by_language():
    table = tables_below("Labels without training")[0]
    rows = {"texts alone": TEXTS, "then topics 1 : 4, 500": TOPICS, "then topics 1 : 4 and": None}
    for beginning, part in rows.items():
        figures = FIGURES if part is None else FIGURES[part]
        shares = by_language(table, figures["sib200, no task training"])
        shown = numbers(row_of(table, beginning))[: len(shares) + 1]
        others = [share for code, share in zip(table[0][1:], shares, strict=False) if code != "en"]
        expected = [100 * share for share in (*shares, mean(others))]
        assert shown == pytest.approx(expected, abs=HALF), beginning


def test_groups_of_all_languages():
    table = tables_below("All 205 languages")[0]
    groups = FIGURES["reading, all 205 languages, 10 rows each, no three tokens said twice"][
        "groups"
    ]
    names = {
        "in the training data": "mean, in XLM-R's training data (90)",
        "not in it": "mean, not in XLM-R's training data (114)",
        "Latin": "mean, Latin script (126)",
        "other scripts": "mean, other scripts (78)",
        "high-resource": "mean, high-resource (25)",
        "low-resource": "mean, low-resource (179)",
        "all without English": "mean without English (204)",
    }
    for beginning, name in names.items():
        count, *shown = numbers(row_of(table, beginning))
        assert f"({count:.0f})" in name
        expected = [groups[name]["recall"], groups[name]["chrf"]]
        assert shown == pytest.approx(expected, abs=HALF), beginning


def test_the_languages_of_xlmr_read_with_guidance():
    figures = FIGURES["reading, guided, XLM-R's 90 languages, 10 rows each"]
    assert len(figures["languages"]) == 90
    (sentence,) = re.findall(r"the 90 languages have a recall of .*?ten", PAGE, re.S)
    means = figures["mean"]
    expected = [90, 100 * means["recall"], means["chrf"], 100 * means["identified"]]
    found = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", sentence)]
    assert found == pytest.approx(expected, abs=HALF)
    by_language = [language["recall"] for language in figures["languages"].values()]
    assert mean(by_language) == pytest.approx(100 * means["recall"], abs=HALF)


def test_the_languages_of_xlmr_with_the_best_of_eight():
    figures = FIGURES["reading, guided, best of 8, XLM-R's 90 languages, 10 rows each"]
    (sentence,) = re.findall(r"they have a recall of .*?alone, and \d+ of the 90", PAGE, re.S)
    means = figures["mean"]
    differences = figures["difference to guided (95 %, over languages)"]
    by_language = {
        name: [language[name] for language in figures["languages"].values()]
        for name in ("recall", "chrf")
    }
    expected = [means["recall"], *means["recall, 95 % over languages"], means["chrf"]]
    expected += [*differences["recall"], *differences["chrf"]]
    expected += [sum(recall >= 25 for recall in by_language["recall"]), 90]
    assert numbers(re.findall(r"\d+(?:\.\d)?", sentence)) == pytest.approx(expected, abs=HALF)
    guided = FIGURES["reading, guided, XLM-R's 90 languages, 10 rows each"]["languages"]
    assert figures["languages"].keys() == guided.keys()
    for name, values in by_language.items():
        assert mean(values) == pytest.approx(means[name], abs=HALF)
        before = mean([language[name] for language in guided.values()])
        assert mean(values) - before == pytest.approx(differences[name][0], abs=HALF)


@pytest.mark.parametrize(
    ("beginning", "part", "reading", "name", "scale"),
    [
        ("with a LoRA, 1,600 steps", LORA, "reading", "recall", 100),
        ("chrF", LORA, "reading", "chrf", 1),
        ("identified among 99, %", LORA, "reading", "identified", 100),
        ("recall without repetitions, %", LORA, SAID_ONCE, "recall", 100),
        ("chrF without repetitions", LORA, SAID_ONCE, "chrf", 1),
        ("450 steps more on longer lines", LONGER, "reading", "recall", 100),
        ("with these steps: chrF", LONGER, "reading", "chrf", 1),
        ("with these steps: identified among 99, %", LONGER, "reading", "identified", 100),
    ],
)
def test_what_is_read_with_a_lora(beginning, part, reading, name, scale):
    table = tables_below("With a LoRA on the LLM")[0]
    # The whole cell, or what is bold at its beginning.
    (row,) = [row for row in table if beginning in (row[0], row[0].strip("*").split("*")[0])]
    assert_row([table[0], row], row[0].strip("*"), of_reading(FIGURES[part][reading], name, scale))
