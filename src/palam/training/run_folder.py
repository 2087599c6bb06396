"""The folder of a training run: what is in it until the run is complete, and after.

`<out>` appears when the run is complete. Until then everything is in `<out>.partial`: settings,
log, results so far, and checkpoints to resume from.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.models.checkpoint import (
    CHECKPOINT_MARKER,
    LOG_FILE,
    RESULTS_FILE,
    SETTINGS_FILE,
    bridge_card,
)
from palam.models.modeling import PalamModel
from palam.training.config import OptimConfig, TrainConfig
from palam.training.trainer import checkpoints, newest_checkpoint
from palam.utils.files import atomic_directory, check_replaceable, remove_directory
from palam.utils.processes import is_main

INPUTS_FILE = "inputs.json"
PROCESSES = "processes"
"""Among a run's inputs: sums over processes are rounded otherwise with another number of them."""
TRAINING_ROWS = "training_rows"
VALIDATION_ROWS = "validation_rows"
BASE_MODELS = "base_models"
PROMPTS = "prompts"
START = "start"
INPUT_WORDS = {
    PROCESSES: "the number of processes",
    TRAINING_ROWS: "the training rows",
    VALIDATION_ROWS: "the validation rows",
    BASE_MODELS: "the encoder or the LLM",
    PROMPTS: "{optim.prompts_file}",
    START: "the bridge {optim.init_from}",
}
"""How messages name a run's inputs; the slots are settings of the run."""
EARLIER_NAMES = {
    "the number of processes": PROCESSES,
    "the training rows": TRAINING_ROWS,
    "the validation rows": VALIDATION_ROWS,
    "the encoder or the LLM": BASE_MODELS,
}
"""The names of inputs in files of before 0.1.0, and what they are called now."""
EARLIER_START = "the bridge "
"""How the start's name begins in these files; that of prompts is their path."""

Inputs = dict[str, str]
"""What a run depends on beside its settings: by name, a digest."""
Results = dict[str, Any]
"""What `results.json` holds, by name."""


class InterruptedRun(NamedTuple):
    """What a run is resumed with."""

    config: TrainConfig
    checkpoint: Path


class RunFolder:
    """Where a run is written: to `work` until it is complete, then to `out`.

    Args:
        out: the checkpoint's folder, an absolute path.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.work = out.with_name(f"{out.name}.partial")

    def check(self) -> None:
        """Refuse folders that hold something else."""
        check_replaceable(self.out, CHECKPOINT_MARKER)
        check_replaceable(self.work, SETTINGS_FILE)

    def interrupted_run(self, config: TrainConfig) -> InterruptedRun:
        """The run to resume, with the dtype that it had measured.

        Raises:
            PalamError: no complete checkpoint, or one of a run with other settings.
        """
        checkpoint = newest_checkpoint(self.work)
        if checkpoint is None:
            damaged = ", ".join(folder.name for folder in checkpoints(self.work))
            reason = f"; damaged: {damaged}" if damaged else ""
            raise PalamError(
                f"there is nothing to resume: {self.work} holds no complete checkpoint{reason}"
            )
        interrupted = TrainConfig.from_yaml(self.work / SETTINGS_FILE)
        if config.runtime.dtype == "auto":  # another time it may be measured otherwise
            config = config.with_settings(dtype=interrupted.runtime.dtype)
        previous_settings = interrupted.settings()
        for name, value in config.settings().items():
            previous = previous_settings[name]
            if value != previous:
                raise PalamError(
                    f"the interrupted run has {name} {previous}, not {value}; "
                    "resume with its settings, or start anew without --resume"
                )
        return InterruptedRun(config, checkpoint)

    def read_results(self) -> Results:
        """The results so far of the run to resume.

        Raises:
            PalamError: they are missing or damaged.
        """
        results: Results = self._read_record(RESULTS_FILE)
        return results

    def check_inputs(self, inputs: Inputs, optim: OptimConfig) -> None:
        """Refuse to resume on other data or from another start than the run began with.

        Args:
            inputs: of the present run.
            optim: its settings, which name the prompts and the start.

        Raises:
            PalamError: some are other ones, or the record of them is missing or damaged.
        """
        previous_inputs = {PROCESSES: "1", **_current_names(self._read_record(INPUTS_FILE))}
        for name, digest in inputs.items():
            if digest != previous_inputs.get(name):
                words = INPUT_WORDS[name].format(optim=optim)
                raise PalamError(
                    f"{words} changed since the interrupted run began; "
                    "resume with what it had, or start anew without --resume"
                )

    def _read_record(self, name: str) -> dict[str, Any]:
        path = self.work / name
        try:
            record = json.loads(path.read_bytes())
            json.dumps(record, allow_nan=False)
        except (OSError, ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise PalamError(f"{path} is missing or damaged; start anew without --resume")
        return record

    def create(self, config: TrainConfig, results: Results, inputs: Inputs) -> None:
        """Make the working folder, in place of one that an earlier run left."""
        remove_directory(self.work)
        self.work.mkdir(parents=True)
        write_record(self.work, config.to_yaml(), results)
        content = json.dumps(inputs, indent=2) + "\n"
        (self.work / INPUTS_FILE).write_text(content, encoding="utf-8")

    @contextlib.contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove the working folder if the block raises and there is nothing to resume from."""
        try:
            yield
        except BaseException:
            if is_main() and newest_checkpoint(self.work) is None:
                remove_directory(self.work)
            raise

    def save(self, model: PalamModel, config: TrainConfig, results: Results) -> None:
        """Write the checkpoint with its record, and remove the working folder."""
        settings = config.to_yaml()
        card = bridge_card(
            model.bridge,
            model.processor,
            english=config.data.is_english,
            settings=settings,
            results=results,
        )
        with atomic_directory(self.out, marker=CHECKPOINT_MARKER) as aside:
            model.write_checkpoint(aside, card)
            write_record(aside, settings, results)
            shutil.copy(self.work / LOG_FILE, aside / LOG_FILE)
        remove_directory(self.work)


def _current_names(inputs: Inputs) -> Inputs:
    """A run's inputs by their present names; files of before 0.1.0 have them in words."""
    if INPUT_WORDS.keys() >= inputs.keys():
        return inputs
    current = {}
    for name, digest in inputs.items():
        if name in EARLIER_NAMES:
            current[EARLIER_NAMES[name]] = digest
        elif name.startswith(EARLIER_START):
            current[START] = digest
        else:
            current[PROMPTS] = digest
    return current


def write_record(folder: Path, settings: str, results: Results) -> None:
    """Write `settings.yaml` and `results.json` into a folder.

    Args:
        folder: an existing one.
        settings: as YAML.
        results: by name.
    """
    (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    content = json.dumps(results, indent=2) + "\n"
    (folder / RESULTS_FILE).write_text(content, encoding="utf-8")
