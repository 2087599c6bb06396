"""What a benchmark found, for its report: means over seeds, paired tests, groups of languages, learning curves."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from palam.bench.recipe import Recipe
from palam.bench.runner import CELLS, CURVE, RECIPE, RUN, lines
from palam.bench.statistics import Answers, compare
from palam.errors import PalamError
from palam.inference.layer_weights import percent
from palam.tasks.registry import get_task
from palam.utils import languages
from palam.utils.languages import resolve_language


def summary(folder: Path, against: str | None = None) -> dict[str, Any]:
    """Everything a template shows, from the finished cells; shares from 0 to 1.

    Args:
        folder: that `palam bench` wrote.
        against: the method that the others are tested against; None is the recipe's.

    Raises:
        PalamError: no results, or none of the method that others are tested against.
    """
    if not (folder / RECIPE).is_file() or not (folder / CELLS).is_file():
        raise PalamError(f"{folder} holds no results of palam bench")
    saved = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    recipe = Recipe(**saved | ({"against": against} if against else {}))
    if files := recipe.read["files"]:
        trained, parallel = Path(str(recipe.train["file"])).name, bool(recipe.read["parallel"])
        rows = ", ".join(Path(one).name for one in files.values())
    else:
        task = get_task(recipe.read["task"])
        trained, parallel, rows = (
            recipe.train["task"],
            task.parallel,
            f"{task.name}, split {recipe.read['split']}",
        )
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in lines(folder / CELLS):
        cells[one["method"]].append(one)
    choices = {name: own["best_of"] for name, own in recipe.methods.items() if "best_of" in own}
    cells |= {name: _best([cells[one] for one in names]) for name, names in choices.items()}
    answers = {name: _answers(folder, cells[name]) for name in recipe.methods if cells[name]}
    if recipe.against not in answers:
        raise PalamError(
            f"{recipe.against}, which the others are tested against, has no finished cell yet"
        )
    other = answers[recipe.against]
    codes = list(other)
    groups = _groups(codes)
    methods = []
    for name, read in answers.items():
        unseen = groups[0][1]  # the mean that counts is of the languages that were not trained on
        tested = {code: one for code, one in read.items() if code in unseen}
        own = name == recipe.against
        each, overall = ({}, None) if own else compare(read, other, parallel=parallel, over=unseen)
        values = {code: mean(one.accuracies) for code, one in read.items()}
        seeds = (
            [mean(one.accuracies[i] for one in tested.values()) for i in range(len(cells[name]))]
            if tested
            else []
        )
        methods.append({
            "name": name, "accuracy": values, "differences": each, "difference": overall, "seeds": seeds,
            "groups": [mean(values[code] for code in some) for _, some in groups],
            "facts": cells[name][0], "seconds": sum(one["seconds"] for one in cells[name]),
        })  # fmt: skip
    published = dict(recipe.published)
    note = published.pop("note", None)
    gains = [one for m in methods for one in m["differences"].values()]
    return {
        "title": recipe.title or rows,
        "read": rows,
        "trained": f"{languages.name(recipe.train.get('language') or 'en')} {trained}",
        "parallel": parallel,
        "recipe": recipe,
        "methods": methods,
        "choices": {
            name: [one["method"] for one in cells[name]] for name in choices if name in answers
        },
        "languages": [
            {"code": code, "name": languages.name(code), "n": len(other[code].rows)}
            for code in codes
        ],
        "groups": groups,
        "published": [
            {
                "method": name,
                "where": place,
                "value": value / 100,
                "ours": _ours(answers.get(name, {}), place, codes),
            }
            for name, some in published.items()
            for place, value in some.items()
        ],
        "note": note,
        "layers": [
            _heat(m["name"], m["facts"]["layers"]) for m in methods if m["facts"].get("layers")
        ],
        "percent": percent,
        "curves": _curves(folder, recipe, groups[0][1]),
        "span": max([0.05, *(abs(end) for one in gains for end in one.ci95)]),
        "run": json.loads((folder / RUN).read_text(encoding="utf-8")),
        "name": languages.name,
    }


def _ours(read: dict[str, Answers], place: str, codes: list[str]) -> float | None:
    """Our figure where the paper gives one: of a language, or the `mean` of all."""
    found = {code: mean(one.accuracies) for code, one in read.items()}
    return (
        (mean(found.values()) if found else None)
        if place == "mean"
        else found.get(resolve_language(place, codes) or "")
    )


def _heat(method: str, layers: dict[str, list[float]]) -> dict[str, Any]:
    """What the heat map's template takes: languages down, layers across."""
    rows = [(languages.name(code), shares) for code, shares in layers.items()]
    foot = [mean(column) for column in zip(*layers.values(), strict=True)]
    return {
        "title": method,
        "tag": None,
        "rows": rows,
        "foot": foot,
        "top": max(map(max, layers.values())) or 1.0,
    }


def _groups(codes: list[str]) -> list[tuple[str, list[str]]]:
    """Names and languages: all but English first, then by script, by resources, by what XLM-R was trained on."""
    english = languages.lookup("en")
    unseen = [code for code in codes if languages.lookup(code) != english] or codes
    known = {code: one for code in unseen if (one := languages.lookup(code))}
    halves: tuple[tuple[str, str, Callable[[languages.Language], bool]], ...] = (
        ("Latin script", "other scripts", lambda one: one.script == "Latin"),
        ("high-resource", "low-resource", lambda one: one.high_resource),
        ("in XLM-R's training data", "not in XLM-R's training data", lambda one: one.in_xlmr),
    )
    found = [("mean without English", unseen)]
    for yes, no, of in halves:
        parts = [
            (f"mean, {name}", [c for c in known if of(known[c]) == on])
            for name, on in ((yes, True), (no, False))
        ]
        found += parts if all(some for _, some in parts) else []
    return found


def _best(tried: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of several methods' cells, for each seed that all have, which has the lowest English validation loss."""
    by_seed = [{one["seed"]: one for one in some} for some in tried]
    found = []
    for seed in sorted(set.intersection(*map(set, by_seed))):
        some = [one[seed] for one in by_seed]
        best = min(some, key=lambda one: one["validation_loss"])["method"]
        found.append({"method": best, "seed": seed, "seconds": sum(one["seconds"] for one in some)})
    return found


def _answers(folder: Path, cells: list[dict[str, Any]]) -> dict[str, Answers]:
    found: dict[str, Answers] = {}
    for cell in sorted(cells, key=lambda one: one["seed"]):
        seeds: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in lines(folder / "predictions" / f"{cell['method']}.{cell['seed']}.jsonl"):
            seeds[row["language"]].append(row)
        for code, rows in seeds.items():
            one = found.setdefault(
                code, Answers([r["row"] for r in rows], [r["label"] for r in rows], [])
            )
            one.predictions.append([row["prediction"] for row in rows])
    return found


def _curves(folder: Path, recipe: Recipe, codes: list[str]) -> dict[str, list[tuple[int, float]]]:
    """By method, (step, mean over seeds and languages), at the chosen rate; the last is the finished bridge."""
    cells = [one for one in lines(folder / CELLS) if "steps" in one]
    chosen = {(one["method"], one["seed"]): one["lr"] for one in cells}
    points: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for one in lines(folder / CURVE):
        if chosen.get((one["method"], one["seed"])) == one["lr"]:
            points[one["method"]][one["at"]][one["seed"]] = mean(
                one["results"][code] for code in codes
            )
    for method, some in points.items():
        seeds = {seed for by in some.values() for seed in by}  # a curve may be of some seeds alone
        ends = [one for one in cells if one["method"] == method and one["seed"] in seeds]
        last = {one["seed"]: mean(one["results"][code] for code in codes) for one in ends}
        some[max(one["steps"] for one in ends)] |= last
    return {
        name: [(at, mean(by.values())) for at, by in sorted(some.items())]
        for name, some in points.items()
    }
