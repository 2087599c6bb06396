"""Training a recipe's methods: the learning rate, the seeds, and the bridges on the way."""

import json
import math
import shutil
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from palam.bench.methods import TrainedMethod
from palam.bench.recipe import Recipe
from palam.bench.results import ResultsFolder, TrainedRun
from palam.models.bases import BaseName, Bases, load_bases, locate_encoder
from palam.models.checkpoint import RESULTS_FILE
from palam.models.modeling import PalamModel
from palam.training.run import train
from palam.training.trainer import NonFiniteLoss, newest_checkpoint
from palam.utils.device import resolve_placement
from palam.utils.files import remove_directory

BASE_SETTINGS = frozenset(
    {
        "encoder",
        "encoder_revision",
        "second_encoder",
        "second_encoder_revision",
        "llm",
        "llm_revision",
        "lora_rank",
        "gradient_checkpointing",
        "dtype",
        "device",
        "load_in",
    }
)
"""A method that changes one of them cannot use the base models of the others."""


class KeepBridges(TrainerCallback):
    """Saves the bridge as it is after some steps of a run, for its learning curve.

    Args:
        bridge: where the run's own bridge will be.
        steps: after which it is kept; 0 is the start.
    """

    def __init__(self, bridge: Path, steps: Collection[int]) -> None:
        self.bridge = bridge
        self.steps = steps

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
        **kwargs: Any,
    ) -> None:
        """Save it, if this is one of the steps."""
        if state.global_step in self.steps:
            optimizer.eval()  # one that averages weights; the next step undoes it
            model.save_pretrained(bridge_at_step(self.bridge, state.global_step))


def bridge_at_step(bridge: Path, step: int) -> Path:
    """Where a run's bridge after a step is kept."""
    return bridge.with_name(f"{bridge.name}.at-{step}")


class MethodTrainer:
    """Trains the methods of a recipe, and loads their bridges.

    Args:
        recipe: what to compare.
        results: where bridges and training runs are kept; none of them is trained twice.
        console: for progress.
    """

    def __init__(self, recipe: Recipe, results: ResultsFolder, console: Console) -> None:
        self.recipe = recipe
        self.results = results
        self.console = console

    @cached_property
    def bases(self) -> Bases:
        """The recipe's encoder, or two, and LLM, loaded once."""
        config = self.recipe.config()
        model, runtime = config.model, config.runtime
        placement = resolve_placement(runtime.device, runtime.dtype, runtime.load_in)
        encoder = locate_encoder(None, None, model)
        llm = BaseName(model.llm, model.llm_revision)
        return load_bases(encoder, llm, placement)

    def choose_rate(self, method: str, seed: int) -> float:
        """The learning rate with the lowest English validation loss; one alone is not tried.

        Args:
            method: that is trained.
            seed: that the rates are tried with.

        Raises:
            PalamError: see [`train`].
        """
        rates = self.recipe.learning_rates(method)
        if len(rates) == 1:
            return rates[0]
        losses: dict[float, float] = {}
        for rate in rates:
            loss = self.train(method, rate, seed).validation_loss
            losses[rate] = math.inf if loss is None else loss
        return min(losses, key=lambda rate: losses[rate])

    def train(
        self, method: str, lr: float, seed: int, *, bridge_needed: bool = False
    ) -> TrainedRun:
        """Train, if that was not done yet, or if the bridge is needed and gone.

        Args:
            method: that is trained.
            lr: its learning rate.
            seed: of the run.
            bridge_needed: whether more than the run's figures is needed. Then a loss that does not
                stay finite is an error; else it is a loss that is infinite.

        Raises:
            PalamError: see [`train`].
        """
        bridge = self.results.bridge(method, lr, seed)
        for run in self.results.trained_runs():
            is_this_run = (run.method, run.lr, run.seed) == (method, lr, seed)
            if is_this_run and (bridge.is_dir() or not bridge_needed):
                return run
        figures: dict[str, Any] = {"validation_loss": math.inf}
        if bridge.is_dir() or self._train_bridge(method, lr, seed, bridge, must=bridge_needed):
            figures = json.loads((bridge / RESULTS_FILE).read_text(encoding="utf-8"))
            figures.pop("texts", None)
        run = TrainedRun.from_row({"method": method, "lr": lr, "seed": seed, **figures})
        self.results.add_trained_run(run)
        return run

    def _train_bridge(self, method: str, lr: float, seed: int, bridge: Path, *, must: bool) -> bool:
        """Train, or resume an interrupted run; whether the loss stayed finite.

        Raises:
            NonFiniteLoss: if it did not, and it must.
        """
        partial = bridge.with_name(f"{bridge.name}.partial")
        try:
            train(
                self.recipe.config(method, lr, seed),
                bridge,
                resume=newest_checkpoint(partial) is not None,
                console=self.console,
                bases=self._bases_of(method),
                callbacks=[KeepBridges(bridge, self.recipe.curve)],
            )
        except NonFiniteLoss:  # a rate that is too high is not the best one
            if must:
                raise
            remove_directory(partial)
            return False
        return True

    def load(self, method: str, bridge: Path) -> PalamModel:
        """A method's bridge with its base models.

        Args:
            method: that it was trained as.
            bridge: its folder.
        """
        runtime = self.recipe.config(method).runtime
        placement = resolve_placement(runtime.device, runtime.dtype, runtime.load_in)
        bases = self._bases_of(method)
        encoder, llm = bases if bases is not None else (None, None)
        return PalamModel.from_pretrained(bridge, encoder, llm, **placement)

    def remove_rejected(self, method: str, lr: float, seed: int) -> None:
        """Remove the bridges of the learning rates that were tried and not chosen.

        Args:
            method: that was trained.
            lr: that was chosen.
            seed: that the rates were tried with.
        """
        for rate in self.recipe.learning_rates(method):
            if rate == lr:
                continue
            bridge = self.results.bridge(method, rate, seed)
            shutil.rmtree(bridge, ignore_errors=True)
            for step in self.recipe.curve:
                shutil.rmtree(bridge_at_step(bridge, step), ignore_errors=True)

    def _bases_of(self, method: str) -> Bases | None:
        """The shared base models; None if the method needs others."""
        trained = self.recipe.methods[method]
        assert isinstance(trained, TrainedMethod)
        return None if BASE_SETTINGS & trained.settings.keys() else self.bases
