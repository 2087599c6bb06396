"""`palam train`."""

import shlex
import sys
from pathlib import Path

from palam.cli._options import (
    MODEL_DEFAULTS,
    OPTIM_DEFAULTS,
    TRAIN_RUNTIME_DEFAULTS,
    ConfigFile,
    DataOptions,
    ModelOptions,
    OptimOptions,
    TrainRuntimeOptions,
)
from palam.cli._training import run_training
from palam.training.config import DataConfig, TrainConfig

LABELLED_ENDINGS = (".csv", ".tsv", ".xlsx", ".parquet", ".jsonl", ".json")
"""Of files that are labelled in their own format; of others, as JSON lines."""


def train(
    *,
    out: Path,
    resume: bool = False,
    config: ConfigFile = None,
    data: DataOptions = None,
    model: ModelOptions = MODEL_DEFAULTS,
    optim: OptimOptions = OPTIM_DEFAULTS,
    runtime: TrainRuntimeOptions = TRAIN_RUNTIME_DEFAULTS,
) -> None:
    """Train a bridge on English.

    The text is that of a task, of a file of your own, or raw. The bridge alone is trained; the
    encoder and the LLM stay as they are.

    Args:
        out: The checkpoint's folder; <out>.partial until the run is complete.
        resume: Resume an interrupted run.
    """
    settings = TrainConfig(model=model, data=data or DataConfig(), optim=optim, runtime=runtime)
    if run_training(settings, out, resume=resume):
        next_command = _next_command(out, settings.data)
        if next_command:
            print(f"next: {next_command}", file=sys.stderr)


def _next_command(out: Path, data: DataConfig) -> str | None:
    """The command that uses the new checkpoint."""
    if data.task:
        command = ["palam", "evaluate", str(out), "--task", data.task]
        if data.data:
            command += ["--data", str(data.data)]
        return shlex.join(command)
    if data.file:
        return _classify_command(out, data)
    return None


def _classify_command(out: Path, data: DataConfig) -> str:
    """The command that labels the rows of the file that was trained on; of a pipe, a text."""
    path = data.file
    assert path is not None
    if data.source().is_stream:
        return shlex.join(["palam", "classify", str(out)]) + ' --text "..."'
    command = ["palam", "classify", str(out), "--file", str(path)]
    if data.file_format is not None:
        command += ["--format", data.file_format]
    if data.sheet is not None:
        command += ["--sheet", data.sheet]
    ending = path.suffix if path.suffix.lower() in LABELLED_ENDINGS else ".jsonl"
    labelled = path.with_name(f"{path.stem}-labelled{ending}")
    return shlex.join([*command, "--out", str(labelled)])
