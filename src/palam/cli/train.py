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
    silence_libraries,
)
from palam.cli._output import check_writable
from palam.errors import PalamError
from palam.training.config import DataConfig, TrainConfig


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
    check_writable(out)
    from rich.console import Console

    from palam.training.run import train as run_training
    from palam.training.trainer import NonFiniteLoss, newest_checkpoint

    silence_libraries()
    partial = out.with_name(f"{out.name}.partial")
    try:
        run_training(settings, out, resume=resume, console=Console(stderr=True))
    except KeyboardInterrupt:
        if newest_checkpoint(partial):
            raise KeyboardInterrupt("to resume, give the same command with --resume") from None
        raise
    except NonFiniteLoss as error:
        last_checkpoint = newest_checkpoint(partial)
        if last_checkpoint is None:
            raise PalamError(str(error)) from None
        raise PalamError(f"{error}; the last good checkpoint is {last_checkpoint}") from None
    print(f"saved to {out}", file=sys.stderr)
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
        return shlex.join(["palam", "classify", str(out)]) + ' --text "..."'
    return None
