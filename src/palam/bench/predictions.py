"""The predictions of a benchmark: one JSON-lines file a run, or all of them in one packed file.

The packed file holds what every method has in common (items, labels) once, so that the
predictions of a whole benchmark take a few kilobytes. It is JSON, compressed by xz:

    {"labels": ["sports", "travel", …],
     "items": {"sin_Sinh": {"rows": [0, 1, …], "labels": [0, 1, …]}, …},
     "runs": [{"method": "last", "seed": 0, "predictions": {"sin_Sinh": [0, 4, …], …}}, …]}

Labels and predictions are positions in the list of labels; null is no prediction. Where answers are
compared with a text, that text and the answers are the labels, and a run has the recall of each
answer in `recalls`, as `predictions` has the answer.
"""

import json
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from palam.bench.field_types import check_fields
from palam.bench.json_lines import read_rows
from palam.errors import PalamError
from palam.utils.files import atomic_file

WRONG_FORM = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading JSON raises that has another form."""


@dataclass(frozen=True)
class LanguagePredictions:
    """What one run predicted for one language's items."""

    rows: list[int] = field(default_factory=list)
    """The items' rows in their file."""
    labels: list[str] = field(default_factory=list)
    """The right label of each."""
    predictions: list[str | None] = field(default_factory=list)
    """The predicted label of each; None is none."""
    recalls: list[float] = field(default_factory=list)
    """Of a task whose answers are compared with a text: the content-word recall of each."""

    @property
    def correct(self) -> int:
        """How many predictions are right."""
        pairs = zip(self.predictions, self.labels, strict=True)
        return sum(prediction == label for prediction, label in pairs)

    @property
    def mean(self) -> float:
        """The share of right predictions, or the mean recall."""
        if self.recalls:
            return fmean(self.recalls)
        return self.correct / len(self.labels)


@dataclass(frozen=True)
class PredictionRow:
    """A line of a run's predictions: what is read of it."""

    language: str
    row: int
    label: str
    prediction: str | None
    recall: float | None = None


RunPredictions = dict[str, LanguagePredictions]
"""What one run predicted, by language."""


class Run(NamedTuple):
    """A method with one seed."""

    method: str
    seed: int


def group_by_language(rows: Iterable[Mapping[str, Any]]) -> RunPredictions:
    """One run's predictions by language.

    Args:
        rows: `{"language", "row", "label", "prediction"}`, and of a task whose answers are compared
            with a text the `recall`; what else they hold is left out. So is a row whose recall is
            null: nothing can be measured by it, in any run.

    Raises:
        PalamError: a row that lacks one of these, or whose value is of another type.
    """
    by_language: RunPredictions = {}
    for row in rows:
        check_fields(PredictionRow, row)
        recall = row.get("recall")
        if recall is None and "recall" in row:
            continue
        language = by_language.setdefault(row["language"], LanguagePredictions())
        language.rows.append(row["row"])
        language.labels.append(row["label"])
        language.predictions.append(row["prediction"])
        if recall is not None:
            language.recalls.append(recall)
    return by_language


def read_plain(path: Path) -> RunPredictions:
    """One run's predictions from its JSON-lines file.

    Raises:
        PalamError: a row that is none.
    """
    try:
        return group_by_language(read_rows(path))
    except PalamError as error:
        raise PalamError(f"{path}: {error}") from None


def write_packed(path: Path, runs: Mapping[Run, RunPredictions]) -> None:
    """Write the predictions of all runs into one file.

    Args:
        path: of the file.
        runs: all of one benchmark; of each language they have the same items.

    Raises:
        PalamError: two runs with different items, or a file that cannot be written.
    """
    items: dict[str, LanguagePredictions] = {}
    labels: set[str] = set()
    for run, by_language in runs.items():
        for code, language in by_language.items():
            first = items.setdefault(code, language)
            if (first.rows, first.labels) != (language.rows, language.labels):
                raise PalamError(
                    f"{run.method}, seed {run.seed}: other items of {code} than before"
                )
            labels.update(language.labels)
            labels.update(label for label in language.predictions if label is not None)
    names = sorted(labels)
    number: dict[str | None, int | None] = {name: index for index, name in enumerate(names)}
    number[None] = None

    packed_items = {}
    for code, language in items.items():
        numbers = [number[label] for label in language.labels]
        packed_items[code] = {"rows": language.rows, "labels": numbers}
    packed_runs = []
    for run, by_language in runs.items():
        predictions = {
            code: [number[label] for label in language.predictions]
            for code, language in by_language.items()
        }
        packed = {**run._asdict(), "predictions": predictions}
        recalls = {code: language.recalls for code, language in by_language.items()}
        if any(recalls.values()):
            packed["recalls"] = recalls
        packed_runs.append(packed)

    content = {"labels": names, "items": packed_items, "runs": packed_runs}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    with atomic_file(path) as file:
        file.write(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def read_packed(path: Path) -> dict[Run, RunPredictions]:
    """The predictions of all runs, from the file that `write_packed` wrote.

    Raises:
        PalamError: it is no such file.
    """
    try:
        content = json.loads(lzma.decompress(path.read_bytes()))
        names = content["labels"]
        runs: dict[Run, RunPredictions] = {}
        for packed in content["runs"]:
            by_language = {}
            recalls = packed.get("recalls", {})
            for code, numbers in packed["predictions"].items():
                items = content["items"][code]
                by_language[code] = LanguagePredictions(
                    rows=items["rows"],
                    labels=[names[number] for number in items["labels"]],
                    predictions=[None if n is None else names[n] for n in numbers],
                    recalls=list(recalls.get(code, ())),
                )
            runs[Run(packed["method"], packed["seed"])] = by_language
    except (OSError, lzma.LZMAError, EOFError, *WRONG_FORM) as error:
        raise PalamError(f"{path} holds no packed predictions: {error}") from None
    return runs
