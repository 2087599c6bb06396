"""Run a recipe, cell by cell, into one results folder; what is finished is never done again.

`recipe.yaml`, `run.json` (versions, hashes of the data), `cells.jsonl` (one line a cell), `rates.jsonl` (one line a
training run), `curve.jsonl`, and `predictions/<method>.<seed>.jsonl`. Bridges are in `bridges/`.
"""

import contextlib
import hashlib
import json
import math
import platform
import shutil
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from transformers import TrainerCallback

from palam.bench import baselines
from palam.bench.plan import USUAL_SHARE, plan
from palam.bench.recipe import Recipe
from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.inference.evaluation import Evaluation, load_languages
from palam.inference.layer_weights import LayerView
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.llm import load_llm
from palam.models.modeling import PalamModel
from palam.tasks.loading import is_local, task_from_file
from palam.tasks.registry import get_task
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.build import Bases
from palam.training.config import TrainConfig
from palam.training.data import TrainingData, read_training_data
from palam.training.run import train
from palam.training.trainer import NonFiniteLoss, newest_checkpoint
from palam.utils.device import resolve_placement
from palam.utils.files import atomic_file, check_replaceable

RECIPE, RUN, CELLS, RATES, CURVE = (
    "recipe.yaml",
    "run.json",
    "cells.jsonl",
    "rates.jsonl",
    "curve.jsonl",
)
LAYER_TEXTS = 8
# may differ when results are gone on with
PLACES = ("data", "file", "files", "cache_dir", "cache_states", "device", "parallel")


class Curve(TrainerCallback):
    """Keeps the bridge as it is at some steps of a run; it is read if the run's rate is chosen."""

    def __init__(self, bridge: Path, steps: list[int]) -> None:
        self.bridge, self.steps = bridge, steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Step 0."""
        self.on_step_end(args, state, control, **kwargs)

    def on_step_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Keep it, if this step is asked for."""
        if state.global_step in self.steps:
            optimizer.eval()  # one that averages; the next step takes it back
            model.save_pretrained(at_step(self.bridge, state.global_step))


def at_step(bridge: Path, step: int) -> Path:
    """Where a run's bridge after a step is kept."""
    return bridge.with_name(f"{bridge.name}.at-{step}")


class Bench:
    """A recipe and its results folder.

    Args:
        recipe: what to compare.
        out: new, or the results of the same recipe, perhaps with fewer methods or seeds.
        console: for progress.

    Raises:
        PalamError: results of other settings or data are there; or a mistake in the data.
    """

    def __init__(self, recipe: Recipe, out: Path, console: Console) -> None:
        self.recipe, self.out, self.console = recipe, out, console
        check_replaceable(out, RECIPE)
        content = recipe.to_dict()
        was = (
            yaml.safe_load((out / RECIPE).read_text(encoding="utf-8"))
            if (out / RECIPE).is_file()
            else None
        )
        self.seed: int = (was or content)["seeds"][0]
        first = recipe.settings(seed=self.seed)
        self.data: TrainingData = read_training_data(first)
        self.task, self.rows = _to_read(recipe, first, self.data)
        hashes = {"train": _hash(self.data.train), "dev": _hash(self.data.dev)}
        hashes |= {code: _hash(some) for code, some in self.rows.items()}
        if was:
            changed = [f"{part}.{key}" for part in ("train", "read") for key in was[part] | content[part]
                       if key not in PLACES and was[part].get(key) != content[part].get(key)]  # fmt: skip
            changed += [
                name for name, own in recipe.methods.items() if was["methods"].get(name, own) != own
            ]
            if changed:
                raise PalamError(
                    f"{out} holds results with other settings ({', '.join(changed)}); give another --out"
                )
            if json.loads((out / RUN).read_text(encoding="utf-8"))["data"] != hashes:
                raise PalamError(f"{out} holds results on other data; give another --out")
            content["methods"] = was["methods"] | content["methods"]
            content["seeds"] = [
                *was["seeds"],
                *(seed for seed in recipe.seeds if seed not in was["seeds"]),
            ]
            if (
                was["against"] not in recipe.methods
            ):  # only some of the methods were named this time
                content["against"] = was["against"]
        versions = {"python": platform.python_version()} | {
            p: version(p) for p in ("palam", "torch", "transformers")
        }
        with atomic_file(out / RUN) as file:
            file.write(
                json.dumps(
                    {"versions": versions, "data": hashes, "validation": self.data.note}
                ).encode()
            )
        with atomic_file(out / RECIPE) as file:
            file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
        self._bases: Bases | None = None

    def read(self, model: PalamModel) -> Evaluation:
        """The recipe's languages."""
        return evaluate(
            model,
            self.task,
            self.recipe.read["split"],
            self.rows,
            batch_size=self.recipe.read["batch_size"],
        )

    def run(self) -> None:
        """Every cell that is not there yet."""
        cells = [(method, seed) for method, seeds in self.recipe.cells(self.seed) for seed in seeds]
        done = {(one["method"], one["seed"]) for one in lines(self.out / CELLS)}
        left = [cell for cell in cells if cell not in done]
        began = time.time()
        for number, (method, seed) in enumerate(left):
            rest = (
                f", {(time.time() - began) / number * (len(left) - number) / 60:.0f} min left"
                if number
                else ""
            )
            self.console.print(
                f"[{len(cells) - len(left) + number + 1}/{len(cells)}] {method}, seed {seed}{rest}",
                markup=False,
            )
            start = time.time()
            try:
                found, facts = self._cell(method, seed)
            except BaseException:
                self._tidy()
                raise
            with atomic_file(self.out / "predictions" / f"{method}.{seed}.jsonl") as file:
                file.writelines(
                    json.dumps(one, ensure_ascii=True).encode() + b"\n" for one in found
                )
            right: dict[str, list[bool]] = {}
            for one in found:
                right.setdefault(one["language"], []).append(one["prediction"] == one["label"])
            results = {code: sum(some) / len(some) for code, some in right.items()}
            cell = {
                "method": method,
                "seed": seed,
                **facts,
                "seconds": round(time.time() - start, 1),
            }
            append(self.out / CELLS, cell | {"results": results})

    def _tidy(self) -> None:
        """If nothing was done yet, leave nothing behind."""
        if not any((self.out / name).exists() for name in (CELLS, RATES, "bridges")):
            for name in (RECIPE, RUN):
                (self.out / name).unlink()
            with contextlib.suppress(OSError):  # it holds something else
                self.out.rmdir()

    def _cell(self, method: str, seed: int) -> baselines.Found:
        own, rows = self.recipe.methods[method], self.rows
        if own.get("baseline") == "majority":
            return baselines.majority(self.data, rows)
        settings = self.recipe.settings(method, seed=seed)
        if own.get("baseline") == "head":
            return baselines.head(settings, self.bases(), self.data, self.task, rows, own["layers"])
        if own.get("baseline"):
            batch = self.recipe.read["batch_size"]
            if own["baseline"] == "translate":
                rows = baselines.translated(
                    settings, rows, self.data.language, own["translator"], batch
                )
            return baselines.llm_only(settings, self.bases(), self.data, self.task, rows, batch)
        rates = self.recipe.rates(method)
        tried = (
            {rate: self._train(method, rate, self.seed) for rate in rates} if len(rates) > 1 else {}
        )
        lr = min(tried, key=lambda rate: tried[rate]["validation_loss"]) if tried else rates[0]
        facts = self._train(method, lr, seed, keep=True)
        self._read_curve(method, lr, seed)
        model = self._load(method, self._bridge(method, lr, seed))
        found = self.read(model).predictions
        for rate in set(rates) - {lr}:
            beaten = self._bridge(method, rate, self.seed)
            for folder in (beaten, *(at_step(beaten, step) for step in self.recipe.curve)):
                shutil.rmtree(folder, ignore_errors=True)
        facts["layers"] = self._layers(model)
        keep = (
            "layers",
            "lr",
            "steps",
            "validation_loss",
            "validation_accuracy",
            "training_seconds",
            "trained_parameters",
        )
        return found, {name: facts.get(name) for name in keep}

    def _layers(self, model: PalamModel) -> dict[str, list[float]]:
        """How much each layer contributes (weight × norm), by language, on its first texts; not of a single layer."""
        if model.config.fusion == "last" or model.config.llm_only:
            return {}
        mode, found = model.processor.template.mode, {}
        for code, rows in self.rows.items():
            views = [
                LayerView.of(model, self.task.render(row, mode), code) for row in rows[:LAYER_TEXTS]
            ]
            found[code] = torch.cat([view.shares for view in views]).mean(0).tolist()
        return found

    def _train(self, method: str, lr: float, seed: int, keep: bool = False) -> dict[str, Any]:
        """What the run gave; it is trained if it was not yet, or if its bridge is needed and gone."""
        bridge = self._bridge(method, lr, seed)
        for known in lines(self.out / RATES):
            if (known["method"], known["lr"], known["seed"]) == (method, lr, seed) and (
                bridge.is_dir() or not keep
            ):
                return known
        settings, cell = (
            self.recipe.settings(method, lr, seed),
            {"method": method, "lr": lr, "seed": seed},
        )
        if not bridge.is_dir():
            resume = newest_checkpoint(bridge.with_name(f"{bridge.name}.partial")) is not None
            curve = [Curve(bridge, self.recipe.curve)]
            bases = None if self._alters(method) else self.bases()
            try:
                train(
                    settings,
                    bridge,
                    resume=resume,
                    console=self.console,
                    bases=bases,
                    callbacks=curve,
                )
            except NonFiniteLoss:  # a rate that is too high is not the best one
                if keep:
                    raise
                shutil.rmtree(bridge.with_name(f"{bridge.name}.partial"), ignore_errors=True)
                append(self.out / RATES, cell | {"validation_loss": math.inf})
                return cell | {"validation_loss": math.inf}
        facts: dict[str, Any] = json.loads((bridge / "results.json").read_text(encoding="utf-8"))
        append(
            self.out / RATES,
            cell | {name: value for name, value in facts.items() if name != "texts"},
        )
        return cell | facts

    def _read_curve(self, method: str, lr: float, seed: int) -> None:
        """Read the bridges that were kept on the way to the one that was chosen, and keep their results alone."""
        for step in self.recipe.curve:
            bridge = at_step(self._bridge(method, lr, seed), step)
            point = {"method": method, "lr": lr, "seed": seed, "at": step}
            if bridge.is_dir() and not any(
                point.items() <= one.items() for one in lines(self.out / CURVE)
            ):
                found = self.read(self._load(method, bridge))
                append(
                    self.out / CURVE,
                    point | {"results": {code: found.accuracy(code) for code in found.correct}},
                )
            shutil.rmtree(bridge, ignore_errors=True)

    def _load(self, method: str, bridge: Path) -> PalamModel:
        settings = self.recipe.settings(method)
        bases = (None, None) if self._alters(method) else self.bases()
        return PalamModel.from_pretrained(
            bridge, *bases, **resolve_placement(settings.device, settings.dtype)
        )

    def _alters(self, method: str) -> bool:
        """Whether it cannot use the base models of the others."""
        return bool(
            {"encoder", "llm", "lora_rank", "dtype", "device", "load_in"}
            & set(self.recipe.methods[method])
        )

    def _bridge(self, method: str, lr: float, seed: int) -> Path:
        return self.out / "bridges" / f"{method}-{lr:g}-{seed}"

    def bases(self) -> Bases:
        """Encoder and LLM, loaded once."""
        if self._bases is None:
            shared = self.recipe.settings()
            options: dict[str, Any] = {
                **resolve_placement(shared.device, shared.dtype),
                "load_in": shared.load_in,
            }
            encoder = load_encoder(shared.encoder, revision=shared.encoder_revision, **options)
            self._bases = encoder, load_llm(shared.llm, revision=shared.llm_revision, **options)
        return self._bases


def estimate(recipe: Recipe, rate: float | None = None) -> list[dict[str, Any]]:
    """What each method will need, without weights: `{"method", "runs", "tokens", "hours", "GiB"}`.

    The rows are those of the data in a folder or this package, else the settings' `limit` or 10,000; a text has 64 of
    the encoder's tokens. `tokens` are of all runs. Where a base model's configuration cannot be had, `note` says so in
    place of figures.
    """
    found, shared = [], recipe.settings()
    local = shared.task is None or is_local(get_task(shared.task), data_dir=shared.data)
    rows = len(read_training_data(shared).train) if local else shared.limit or 10_000
    for method, seeds in recipe.cells(recipe.seeds[0]):
        if "baseline" in recipe.methods[method]:
            found.append(
                {"method": method, "runs": len(seeds), "note": "nothing is trained with the LLM"}
            )
            continue
        settings = recipe.settings(method)
        runs = len(recipe.rates(method)) + len(seeds) - 1
        try:
            one = plan(settings, rows=min(rows, settings.limit or rows), rate=rate)
        except PalamError as error:
            found.append({"method": method, "runs": runs, "note": str(error)})
            continue
        steps = min(one.steps, settings.max_steps) if settings.max_steps > 0 else one.steps
        row = {"method": method, "runs": runs, "tokens": runs * steps * one.tokens}
        hours = runs * steps * one.step_seconds / USUAL_SHARE / 3600
        found.append(
            row | {"hours": round(hours, 2), "GiB": round(sum(one.memory.values()) / 2**30, 2)}
        )
    return found


def _to_read(
    recipe: Recipe, settings: TrainConfig, data: TrainingData
) -> tuple[Task, baselines.Rows]:
    """The task to read, and its rows by language."""
    read, task = recipe.read, data.task
    if task is not None and read["files"]:
        how: dict[str, Any] = {
            "text_column": settings.text_column,
            "label_column": settings.label_column,
        }
        files = {
            code: task_from_file(path, labels=task.labels, **how)[1]
            for code, path in read["files"].items()
        }
        return task, {code: sample(rows, read["limit"]) for code, rows in files.items()}
    wanted = get_task(read["task"])
    if task is None or task.family != wanted.family:
        raise PalamError(
            f"a recipe trains on a task of the family {wanted.family}, which {wanted.name} is of"
        )
    languages = read["languages"]
    return wanted, load_languages(
        wanted, read["split"], languages, data_dir=settings.data, limit=read["limit"]
    )


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line; what a killed run left of one stays a line of its own."""
    with path.open("a+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        file.write(b"\n" * (file.read(1) not in (b"", b"\n")) + json.dumps(row).encode() + b"\n")


def lines(path: Path) -> list[dict[str, Any]]:
    """The file's rows; a line that was cut off is none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _hash(examples: list[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()[:16]
