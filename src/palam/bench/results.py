"""A benchmark's results folder: its files, and the objects that are in them.

| file | content |
|---|---|
| `recipe.yaml` | what is compared, see [`Recipe`] |
| `run.json` | versions, and hashes of the data, see [`RunInfo`] |
| `cells.jsonl` | a line for each method and seed, see [`Cell`] |
| `rates.jsonl` | a line for each training run, see [`TrainedRun`] |
| `curve.jsonl` | a line for each point of a learning curve, see [`CurvePoint`] |
| `predictions/<method>.<seed>.jsonl` | every prediction |
| `predictions.json.xz` | the same of all runs, once they are packed |
| `summary.json` | the figures, once they are packed |
| `bridges/` | the trained bridges |
| `unfinished/<method>.<seed>/` | what a baseline that was stopped is resumed from |
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from palam.bench.field_types import check_fields
from palam.bench.json_lines import append_row, read_rows
from palam.bench.predictions import Run, RunPredictions, read_packed, read_plain
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.utils.files import atomic_directory, atomic_file, remove_directory
from palam.utils.settings import dump_yaml, read_settings

RECIPE_FILE = "recipe.yaml"
RUN_FILE = "run.json"
CELLS_FILE = "cells.jsonl"
RATES_FILE = "rates.jsonl"
CURVE_FILE = "curve.jsonl"
PREDICTIONS_FOLDER = "predictions"
PACKED_PREDICTIONS_FILE = "predictions.json.xz"
SUMMARY_FILE = "summary.json"
BRIDGES_FOLDER = "bridges"
UNFINISHED_FOLDER = "unfinished"

RECIPE_FIELDS = frozenset(field.name for field in fields(Recipe))
Row = TypeVar("Row", bound="JSONRow")


@dataclass(frozen=True, kw_only=True)
class JSONRow:
    """A line of a JSON-lines file, as an object."""

    details: dict[str, Any] = field(default_factory=dict)
    """What else the line holds."""

    @classmethod
    def from_row(cls: type[Row], row: Mapping[str, Any]) -> Row:
        """From the line's content.

        Raises:
            PalamError: a field is missing, or a value is not of its type.
        """
        names = {field.name for field in fields(cls)} - {"details"}
        known = {name: value for name, value in row.items() if name in names}
        details = {name: value for name, value in row.items() if name not in names}
        check_fields(cls, known)
        return cls(**known, details=details)

    def to_row(self) -> dict[str, Any]:
        """As the file has it: without what is not known."""
        row = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "details" and value is not None:
                row[item.name] = value
        return {**row, **self.details}


@dataclass(frozen=True, kw_only=True)
class Cell(JSONRow):
    """What one method reached with one seed.

    Where a baseline chose something, the choice is among `details`: the `label` of majority, the
    `way` of llm_only, the `penalty` of a head; a fine-tuned encoder has a learning rate as methods
    that are trained have.
    """

    method: str
    seed: int
    seconds: float
    """All of it: training, evaluation."""
    results: dict[str, float]
    """Accuracy by language, or content-word recall."""
    chrf: dict[str, float] | None = None
    """Beside content-word recall: mean chrF2 by language, from 0 to 100."""
    identified: dict[str, float] | None = None
    """Beside content-word recall: by language, how often a row's own sentence is the nearest."""
    layers: dict[str, list[float]] | None = None
    """By language, what each encoder layer contributes (weight × norm, as a share); empty of a
    single layer."""
    lr: float | None = None
    """The learning rate that was chosen."""
    steps: int | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    training_seconds: float | None = None
    trained_parameters: int | None = None

    @property
    def run(self) -> Run:
        """The method and the seed."""
        return Run(self.method, self.seed)


@dataclass(frozen=True, kw_only=True)
class TrainedRun(JSONRow):
    """One training run; `details` holds what else the run's `results.json` holds."""

    method: str
    lr: float
    seed: int
    validation_loss: float | None = None
    """Infinite, if the loss did not stay finite; None, if the run ended before a validation."""
    validation_accuracy: float | None = None
    steps: int | None = None
    training_seconds: float | None = None
    trained_parameters: int | None = None


@dataclass(frozen=True, kw_only=True)
class CurvePoint(JSONRow):
    """What a run's bridge reached on the way."""

    method: str
    lr: float
    seed: int
    at: int
    """After how many steps."""
    results: dict[str, float]
    """Accuracy by language, or content-word recall."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """With what the results were made."""

    versions: dict[str, str]
    """Of Python and of the packages."""
    data: dict[str, str]
    """Hashes of the training and validation examples, and of each language's."""
    validation: str
    """What the validation examples are."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Hashes of the files and bridges that settings name, see [`named_input_hashes`]."""


class ResultsFolder:
    """The files of a results folder.

    Args:
        path: of the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    # ------------------------------------------------------------------ reading
    @property
    def is_started(self) -> bool:
        """Whether a benchmark was started in it."""
        return (self.path / RECIPE_FILE).is_file()

    @property
    def has_cells(self) -> bool:
        """Whether there are results."""
        return self.is_started and (self.path / CELLS_FILE).is_file()

    def recipe(self) -> Recipe:
        """The recipe of all that was run in it.

        Raises:
            PalamError: a setting that does not exist (any more).
        """
        path = self.path / RECIPE_FILE
        content = read_settings(path, RECIPE_FIELDS)
        try:
            return Recipe.parse(content)
        except PalamError as error:
            raise PalamError(f"{path}: {error}") from None

    def run_info(self) -> RunInfo:
        """Versions and data.

        Raises:
            PalamError: the file is missing or damaged.
        """
        path = self.path / RUN_FILE
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            raise PalamError(f"{path} is missing or damaged") from None
        try:
            check_fields(RunInfo, content, others=False)
        except PalamError as error:
            raise PalamError(f"{path}: {error}") from None
        return RunInfo(**content)

    def cells(self) -> list[Cell]:
        """The finished cells, in the order in which they were finished.

        Raises:
            PalamError: a row that is none, or one whose languages have other numbers of layers.
        """
        cells = self._rows(CELLS_FILE, Cell)
        for cell in cells:
            if len({len(shares) for shares in (cell.layers or {}).values()}) > 1:
                path = self.path / CELLS_FILE
                raise PalamError(f"{path}: its layers are not as many in every language")
        return cells

    def trained_runs(self) -> list[TrainedRun]:
        """The finished training runs.

        Raises:
            PalamError: a row that is none.
        """
        return self._rows(RATES_FILE, TrainedRun)

    def curve_points(self) -> list[CurvePoint]:
        """The points of all learning curves.

        Raises:
            PalamError: a row that is none.
        """
        return self._rows(CURVE_FILE, CurvePoint)

    def _rows(self, name: str, row_class: type[Row]) -> list[Row]:
        path = self.path / name
        try:
            return [row_class.from_row(row) for row in read_rows(path)]
        except PalamError as error:
            raise PalamError(f"{path}: {error}") from None

    def predictions(self, run: Run) -> RunPredictions:
        """One run's predictions by language, packed or not.

        Raises:
            PalamError: there are none, or a packed file that cannot be read.
        """
        plain = self.predictions_file(run)
        if plain.is_file():
            return read_plain(plain)
        if run not in self._packed_predictions:
            raise PalamError(f"{self.path} lacks the predictions of {run.method}, seed {run.seed}")
        return self._packed_predictions[run]

    @cached_property
    def _packed_predictions(self) -> dict[Run, RunPredictions]:
        packed = self.path / PACKED_PREDICTIONS_FILE
        return read_packed(packed) if packed.is_file() else {}

    def predictions_file(self, run: Run) -> Path:
        """Where a run's predictions are until they are packed."""
        return self.path / PREDICTIONS_FOLDER / f"{run.method}.{run.seed}.jsonl"

    def bridge(self, method: str, lr: float, seed: int) -> Path:
        """Where the bridge of a training run is."""
        return self.path / BRIDGES_FOLDER / f"{method}-{lr:g}-{seed}"

    def unfinished(self, run: Run) -> Path:
        """Where a baseline keeps what it needs to be resumed, until its cell is there."""
        return self.path / UNFINISHED_FOLDER / f"{run.method}.{run.seed}"

    # ------------------------------------------------------------------ writing
    def create(self, recipe: Recipe, info: RunInfo) -> None:
        """Make the folder, with recipe, versions and data at once.

        A run that is killed meanwhile leaves no folder that the next one would take for another's.
        """
        with atomic_directory(self.path, marker=RECIPE_FILE) as folder:
            (folder / RECIPE_FILE).write_bytes(_recipe_content(recipe))
            (folder / RUN_FILE).write_bytes(_info_content(info))

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe of all that was and will be run in it."""
        with atomic_file(self.path / RECIPE_FILE) as file:
            file.write(_recipe_content(recipe))

    def write_run_info(self, info: RunInfo) -> None:
        """Write versions and data."""
        with atomic_file(self.path / RUN_FILE) as file:
            file.write(_info_content(info))

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it: no cell, training run, bridge or checkpoint."""
        self._remove_empty_unfinished()
        names = {path.name for path in self.path.iterdir()}
        if names <= {RECIPE_FILE, RUN_FILE, PREDICTIONS_FOLDER}:
            remove_directory(self.path)

    def write_predictions(self, run: Run, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a run's predictions: `{"language", "row", "label", "prediction", …}` each."""
        with atomic_file(self.predictions_file(run)) as file:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")

    def add_cell(self, cell: Cell) -> None:
        """Add a finished cell."""
        append_row(self.path / CELLS_FILE, cell.to_row())

    def remove_unfinished(self, run: Run) -> None:
        """Remove what a baseline has kept to be resumed from."""
        remove_directory(self.unfinished(run))
        self._remove_empty_unfinished()

    def _remove_empty_unfinished(self) -> None:
        """Remove the folder of what is unfinished if it holds no file."""
        folder = self.path / UNFINISHED_FOLDER
        if not any(path.is_file() for path in folder.rglob("*")):
            remove_directory(folder)

    def add_trained_run(self, run: TrainedRun) -> None:
        """Add a finished training run."""
        append_row(self.path / RATES_FILE, run.to_row())

    def add_curve_point(self, point: CurvePoint) -> None:
        """Add a point of a learning curve."""
        append_row(self.path / CURVE_FILE, point.to_row())


def _recipe_content(recipe: Recipe) -> bytes:
    return dump_yaml(recipe.to_dict()).encode()


def _info_content(info: RunInfo) -> bytes:
    return json.dumps(dataclasses.asdict(info)).encode()
