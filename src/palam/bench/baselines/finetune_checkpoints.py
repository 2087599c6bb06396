"""What is kept while an encoder is fine-tuned: its best weights, and checkpoints to resume from.

A folder holds `best/`, and for each learning rate a folder with its newest checkpoints, which is
empty but for a mark once the run is done.
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn
from transformers import Trainer, TrainerCallback

from palam.training.checksums import is_whole, write_checksums
from palam.training.trainer import CHECKPOINT_PREFIX, checkpoints
from palam.utils.files import atomic_directory, remove_directory

SECONDS_BETWEEN = 300.0
"""From one checkpoint to the next: weights and two moments of a whole encoder take gigabytes."""
NUM_KEPT = 2
"""Checkpoints of a run: while one is written, the one before it is whole."""
BEST_FOLDER = "best"
BEST_FILE = "best.json"
WEIGHTS_FILE = "model.safetensors"
DONE_FILE = "done"


class BestWeights(TrainerCallback):
    """Keeps the weights that had the lowest validation loss of all runs so far, in a folder.

    Args:
        folder: of all runs. What is there of an earlier process is used; nothing, if it is damaged.

    Attributes:
        loss: of the best weights; infinite if there are none.
        lr: the learning rate of their run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / BEST_FOLDER
        self.loss = math.inf
        self.lr = math.nan
        if not self.folder.exists():
            return
        if is_whole(self.folder):
            best = json.loads((self.folder / BEST_FILE).read_text(encoding="utf-8"))
            self.loss = best["validation_loss"]
            self.lr = best["lr"]
        else:  # the runs that are done have left nothing else: they are trained again
            remove_directory(folder)

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keep the model's weights, if their loss is lower."""
        loss = metrics["eval_loss"]
        if not loss < self.loss:
            return
        self.loss = loss
        self.lr = args.learning_rate
        best = {"validation_loss": self.loss, "lr": self.lr}
        with atomic_directory(self.folder, marker=BEST_FILE) as aside:
            save_model(model, str(aside / WEIGHTS_FILE))
            (aside / BEST_FILE).write_text(json.dumps(best), encoding="utf-8")
            write_checksums(aside)

    def load(self, model: nn.Module) -> None:
        """Put the best weights into a model."""
        load_model(model, self.folder / WEIGHTS_FILE)


class SaveNowAndThen(TrainerCallback):
    """Asks for a checkpoint when the last one is some time ago, and makes it one to resume from."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for one within an epoch; at its end, the validation comes first."""
        steps_an_epoch = state.max_steps // args.num_train_epochs
        if state.global_step % steps_an_epoch:
            self._ask(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for one, which is written when the epoch is validated."""
        self._ask(control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark it as whole."""
        write_checksums(Path(args.output_dir) / f"{CHECKPOINT_PREFIX}{state.global_step}")
        self._last = time.monotonic()

    def _ask(self, control: Any) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN:
            control.should_save = True


class FinetuneTrainer(Trainer):
    """The library's, with weights in one safetensors file, also those that two names share."""

    model: Any
    args: Any

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / WEIGHTS_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_model(self.model, Path(resume_from_checkpoint) / WEIGHTS_FILE)


def is_done(run: Path) -> bool:
    """Whether a run has come to its end.

    Args:
        run: its folder.
    """
    return (run / DONE_FILE).is_file()


def mark_done(run: Path) -> None:
    """A run has come to its end: its checkpoints are no longer needed.

    Args:
        run: its folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / DONE_FILE).touch()
    for checkpoint in checkpoints(run):
        shutil.rmtree(checkpoint)
