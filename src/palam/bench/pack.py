"""Pack a results folder: its figures as `summary.json`, all predictions in one small file.

    python -m palam.bench.pack FOLDER…

A packed folder can be reported, and resumed, like any other.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palam.bench.predictions import LanguagePredictions, Run, read_packed, write_packed
from palam.bench.report import MethodSummary, Summary, summary
from palam.bench.results import (
    PACKED_PREDICTIONS_FILE,
    PREDICTIONS_FOLDER,
    SUMMARY_FILE,
    ResultsFolder,
)
from palam.bench.statistics import Difference
from palam.errors import PalamError
from palam.inference.evaluation import wilson
from palam.inference.reading_metrics import bootstrap_interval
from palam.utils.files import atomic_file

DECIMALS = 6
"""Of the shares in a summary."""
LEVELS_ON_LINES = 4
"""How deep a summary is written with a line for each entry."""


def pack(folder: Path) -> None:
    """Write a folder's summary, and its predictions into one file in place of many.

    Of the predictions, the scores of the labels are not kept.

    Args:
        folder: that `palam bench` wrote; every cell must have its predictions.

    Raises:
        PalamError: no results, or predictions that are missing; nothing is removed then.
    """
    results = ResultsFolder(folder)
    found = summary(folder)
    content = summary_content(found, results)
    runs = {cell.run: results.predictions(cell.run) for cell in results.cells()}
    packed = folder / PACKED_PREDICTIONS_FILE
    write_packed(packed, runs)
    if read_packed(packed) != runs:
        raise PalamError(f"{packed} does not hold what was written to it")
    with atomic_file(folder / SUMMARY_FILE) as file:
        file.write(_to_lines(content, LEVELS_ON_LINES).encode() + b"\n")
    shutil.rmtree(folder / PREDICTIONS_FOLDER, ignore_errors=True)


def summary_content(found: Summary, results: ResultsFolder) -> dict[str, Any]:
    """A summary as JSON; shares are from 0 to 1.

    Args:
        found: of [`summary`].
        results: of the same folder: its predictions are counted.

    Returns:
        What was read, the methods by name, and the versions. Of each method: the mean without
        English (of the seeds, and of each), the means of the groups of languages, the difference to
        `against` with its 95 % interval; by language the difference with its interval and adjusted
        p; and by seed and language n, how many are correct, the accuracy and its Wilson interval.
        Of recalls: n, their mean and its bootstrap interval over rows, and of each method its mean
        chrF (0 to 100) and share of identified answers.
    """
    return {
        "title": found.title,
        "read": found.read,
        "trained": found.trained,
        "parallel": found.parallel,
        "against": found.against,
        "methods": {
            method.name: _method_content(method, found, results) for method in found.methods
        },
        "choices": found.choices,
        "groups": {group.name: group.codes for group in found.groups},
        "validation": found.run.validation,
        "versions": found.run.versions,
    }


def _method_content(
    method: MethodSummary, found: Summary, results: ResultsFolder
) -> dict[str, Any]:
    groups = {
        group.name: _rounded(accuracy)
        for group, accuracy in zip(found.groups, method.groups, strict=True)
    }
    content: dict[str, Any] = {
        "mean": groups[found.groups[0].name],
        "mean_of_seeds": [_rounded(accuracy) for accuracy in method.seeds],
        "groups": groups,
    }
    if method.chrf is not None:
        content["chrf"] = _rounded(method.chrf)
    if method.identified is not None:
        content["identified"] = _rounded(method.identified)
    if method.difference is not None:
        content["difference"] = _difference_content(method.difference)
        content["wins"] = method.wins
        content["differences"] = {
            code: _difference_content(difference) for code, difference in method.differences.items()
        }
    seeds = {}
    for cell in sorted(method.cells, key=lambda cell: cell.seed):
        predictions = results.predictions(Run(cell.method, cell.seed))
        seeds[str(cell.seed)] = {
            code: _language_content(language) for code, language in predictions.items()
        }
    content["seeds"] = seeds
    return content


def _language_content(language: LanguagePredictions) -> dict[str, Any]:
    n = len(language.labels)
    if language.recalls:
        interval = bootstrap_interval(language.recalls)
        return {
            "n": n,
            "recall": _rounded(language.mean),
            "ci95": [_rounded(end) for end in interval],
        }
    interval = wilson(language.correct, n)
    return {
        "n": n,
        "correct": language.correct,
        "accuracy": _rounded(language.correct / n),
        "ci95": [_rounded(end) for end in interval],
    }


def _difference_content(difference: Difference) -> dict[str, Any]:
    content: dict[str, Any] = {
        "mean": _rounded(difference.mean),
        "ci95": [_rounded(end) for end in difference.ci95],
    }
    if difference.p is not None:
        content["p"] = float(f"{difference.p:.4g}")
        content["win"] = difference.win
    return content


def _rounded(share: float) -> float:
    return round(share, DECIMALS)


def _to_lines(value: Any, levels: int, indent: str = "") -> str:
    """JSON with a line for each entry of the outer levels; what holds no others is in one line."""
    is_outer = isinstance(value, dict) and any(isinstance(item, dict) for item in value.values())
    if levels == 0 or not is_outer:
        return json.dumps(value, ensure_ascii=False)
    inner = f"{indent} "
    entries = []
    for name, entry in value.items():
        entries.append(f"{inner}{json.dumps(name)}: {_to_lines(entry, levels - 1, inner)}")
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack the folders that are named; 2 if one of them cannot be packed."""
    parser = argparse.ArgumentParser(prog="python -m palam.bench.pack", description=pack.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that palam bench wrote")
    options = parser.parse_args(arguments)
    try:
        for folder in options.folders:
            pack(folder)
    except PalamError as error:
        print(f"palam: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
