"""Run a recipe, cell by cell, into one results folder; a finished cell is not repeated."""

import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from palam.bench.baselines.base import BaselineInput, Outcome
from palam.bench.method_trainer import MethodTrainer, bridge_at_step
from palam.bench.methods import BaselineMethod
from palam.bench.named_inputs import changed_inputs, named_input_hashes
from palam.bench.predictions import Run, group_by_language
from palam.bench.recipe import Recipe
from palam.bench.results import (
    RECIPE_FILE,
    Cell,
    CurvePoint,
    ResultsFolder,
    RunInfo,
)
from palam.bench.task_rows import data_hashes, find_rows
from palam.errors import PalamError
from palam.inference.evaluation import Evaluation, evaluate
from palam.inference.layer_weights import LayerView
from palam.inference.prediction import Prediction
from palam.inference.reading_metrics import ReadingMetrics
from palam.models.modeling import PalamModel
from palam.training.data import read_training_data
from palam.utils.files import check_replaceable
from palam.utils.versions import installed_versions

LAYER_TEXTS = 8
"""Texts of each language on which the layers' contributions are averaged."""
PLACES = frozenset({"data", "file", "files", "cache_dir", "cache_states", "device", "parallel"})
"""Settings that may change when results are resumed: where things are, not what they are."""


class Bench:
    """A recipe and its results folder.

    Args:
        recipe: what to compare.
        out: new, or the results of the same recipe, perhaps with fewer methods or seeds.
        console: for progress.

    Raises:
        PalamError: results of other settings or data are there; a package is missing; or a mistake
            in the data.
    """

    def __init__(self, recipe: Recipe, out: Path, console: Console) -> None:
        self.recipe = recipe
        self.console = console
        check_replaceable(out, RECIPE_FILE)
        for method in recipe.methods.values():
            if isinstance(method, BaselineMethod):
                method.built().check_installed()
        self.results = ResultsFolder(out)
        self.trainer = MethodTrainer(recipe, self.results, console)
        previous = self.results.recipe() if self.results.is_started else None
        self.first_seed = (previous or recipe).seeds[0]

        config = recipe.config(seed=self.first_seed)
        self.data = read_training_data(
            config.data, seed=self.first_seed, prompt=config.model.prompt
        )
        self.task, self.rows = find_rows(recipe, config.data, self.data)
        info = RunInfo(
            versions=installed_versions(),
            data=data_hashes(self.data, self.rows),
            inputs=named_input_hashes(recipe),
            validation=self.data.note,
        )
        if previous is None:
            self.results.create(recipe, info)
        else:
            _check_same_settings(previous, recipe, out)
            earlier = self.results.run_info()
            _check_same_data(earlier, info, out)
            self.results.write_run_info(replace(info, inputs={**earlier.inputs, **info.inputs}))
            self.results.write_recipe(combine(previous, recipe))

    def run(self) -> None:
        """Every cell that is not finished yet."""
        cells = [
            Run(method, seed)
            for method, seeds in self.recipe.runs(self.first_seed)
            for seed in seeds
        ]
        finished = {cell.run for cell in self.results.cells()}
        for cell in finished:
            # A run that was killed between its cell and this has left it.
            self.results.remove_unfinished(cell)
        remaining = [cell for cell in cells if cell not in finished]
        start = time.time()
        for done, cell in enumerate(remaining):
            position = len(cells) - len(remaining) + done + 1
            line = f"[{position}/{len(cells)}] {cell.method}, seed {cell.seed}"
            if done:
                seconds_left = (time.time() - start) / done * (len(remaining) - done)
                line += f", {seconds_left / 60:.0f} min left"
            self.console.print(line, markup=False)
            try:
                self._run_cell(cell)
            except BaseException:
                self.results.remove_if_empty()
                raise

    def evaluate(self, model: PalamModel) -> Evaluation:
        """A model on all that the recipe reads."""
        read = self.recipe.read
        return evaluate(
            model,
            self.task,
            read.split,
            self.rows,
            batch_size=read.batch_size,
            decoding={} if model.config.llm_only else read.decoding(),
        )

    def _run_cell(self, run: Run) -> None:
        """One method with one seed, into the results folder."""
        start = time.time()
        method = self.recipe.methods[run.method]
        if isinstance(method, BaselineMethod):
            outcome = self._run_baseline(method, run)
        else:
            outcome = self._run_trained(run)
        self.results.write_predictions(run, outcome.predictions)
        cell = {
            **run._asdict(),
            **outcome.figures,
            "seconds": round(time.time() - start, 1),
            "results": results_by_language(outcome.predictions),
            **figures_beside_recall(outcome.predictions),
        }
        self.results.add_cell(Cell.from_row(cell))
        self.results.remove_unfinished(run)

    def _run_baseline(self, method: BaselineMethod, run: Run) -> Outcome:
        """A baseline on this seed's rows."""
        config = self.recipe.config(run.method, seed=run.seed)
        data = self.data
        if run.seed != self.first_seed:
            data = read_training_data(config.data, seed=run.seed, prompt=config.model.prompt)
        chosen = [
            cell.lr
            for cell in self.results.cells()
            if cell.method == run.method and cell.lr is not None
        ]
        given = BaselineInput(
            model=config.model,
            runtime=config.runtime,
            data=data,
            task=self.task,
            rows=self.rows,
            batch_size=self.recipe.read.batch_size,
            load_bases=lambda: self.trainer.bases,
            folder=self.results.unfinished(run),
            chosen_lr=chosen[0] if chosen else None,
        )
        return method.built().run(given)

    def _run_trained(self, run: Run) -> Outcome:
        """A method that is trained: the rate chosen, the curve and the bridge evaluated."""
        trainer = self.trainer
        lr = trainer.choose_rate(run.method, self.first_seed)
        trained = trainer.train(run.method, lr, run.seed, bridge_needed=True)
        self._evaluate_curve(run, lr)
        model = trainer.load(run.method, self.results.bridge(run.method, lr, run.seed))
        predictions = self.evaluate(model).predictions
        trainer.remove_rejected(run.method, lr, self.first_seed)
        figures = {
            "layers": self._layer_shares(model),
            "lr": lr,
            "steps": trained.steps,
            "validation_loss": trained.validation_loss,
            "validation_accuracy": trained.validation_accuracy,
            "training_seconds": trained.training_seconds,
            "trained_parameters": trained.trained_parameters,
        }
        return Outcome(predictions, figures)

    def _evaluate_curve(self, run: Run, lr: float) -> None:
        """Evaluate the bridges that were kept on the way to this run's, and remove them."""
        for step in self.recipe.curve:
            bridge = bridge_at_step(self.results.bridge(run.method, lr, run.seed), step)
            known = [
                (point.method, point.lr, point.seed, point.at)
                for point in self.results.curve_points()
            ]
            if bridge.is_dir() and (run.method, lr, run.seed, step) not in known:
                evaluation = self.evaluate(self.trainer.load(run.method, bridge))
                point = CurvePoint(
                    method=run.method,
                    lr=lr,
                    seed=run.seed,
                    at=step,
                    results=results_by_language(evaluation.predictions),
                )
                self.results.add_curve_point(point)
            shutil.rmtree(bridge, ignore_errors=True)

    def _layer_shares(self, model: PalamModel) -> dict[str, list[float]]:
        """By language, what each layer contributes (weight × norm) on its first texts.

        There is none of a single layer, and of an LLM that reads the text itself.
        """
        if model.config.fusion == "last" or model.config.llm_only:
            return {}
        mode = model.processor.template.mode
        shares = {}
        for code, examples in self.rows.items():
            texts = [self.task.render(example, mode) for example in examples[:LAYER_TEXTS]]
            views = [LayerView.of(model, text, code) for text in texts]
            shares[code] = torch.cat([view.shares for view in views]).mean(0).tolist()
        return shares


def combine(previous: Recipe, recipe: Recipe) -> Recipe:
    """The recipe of a results folder that is resumed: methods and seeds of both.

    Args:
        previous: of the results that are there.
        recipe: which may name only some of the methods.
    """
    new_seeds = [seed for seed in recipe.seeds if seed not in previous.seeds]
    against = recipe.against if previous.against in recipe.methods else previous.against
    return replace(
        recipe,
        methods={**previous.methods, **recipe.methods},
        seeds=(*previous.seeds, *new_seeds),
        against=against,
    )


def results_by_language(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The share of right predictions in each language, or the mean recall."""
    by_language = group_by_language(predictions)
    return {code: language.mean for code, language in by_language.items()}


def figures_beside_recall(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    """What else is measured of answers that are compared with a text: each figure by language.

    There is none of other tasks.
    """
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        rows[prediction["language"]].append(prediction)
    figures: dict[str, dict[str, float]] = defaultdict(dict)
    for code, of_language in rows.items():
        reading = ReadingMetrics.of(of_language)
        if reading.chrf is not None:
            figures["chrf"][code] = reading.chrf
        if reading.identified is not None:
            figures["identified"][code] = reading.identified
    return dict(figures)


def _check_same_settings(previous: Recipe, recipe: Recipe, out: Path) -> None:
    """Refuse results of other settings.

    Raises:
        PalamError: names the settings and methods that differ.
    """
    differences = []
    before, after = previous.to_dict(), recipe.to_dict()
    for part in ("train", "read"):
        for name in {**before[part], **after[part]}:
            if name not in PLACES and before[part].get(name) != after[part].get(name):
                differences.append(f"{part}.{name}")
    for name, method in recipe.methods.items():
        if previous.methods.get(name, method) != method:
            differences.append(name)
    if differences:
        raise PalamError(
            f"{out} holds results with other settings ({', '.join(differences)}); "
            "give another --out"
        )


def _check_same_data(earlier: RunInfo, present: RunInfo, out: Path) -> None:
    """Refuse results on other data, or of other files and bridges that settings name.

    Raises:
        PalamError: names the settings that differ.
    """
    if earlier.data != present.data:
        raise PalamError(f"{out} holds results on other data; give another --out")
    changed = changed_inputs(earlier.inputs, present.inputs)
    if changed:
        raise PalamError(
            f"{out} holds results of other contents ({', '.join(changed)}); give another --out"
        )
