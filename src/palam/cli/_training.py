"""A training run as a command: what is printed, and what becomes of a run that ends early."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palam.cli._options import silence_libraries
from palam.cli._output import check_writable
from palam.errors import PalamError
from palam.training.config import TrainConfig, settings_of_task
from palam.utils.processes import is_main, leave_processes


def run_training(config: TrainConfig, out: Path, *, resume: bool) -> bool:
    """Train a bridge, and say where it is.

    Args:
        config: of the run.
        out: the checkpoint's folder.
        resume: resume an interrupted run.

    Returns:
        Whether this is the process that speaks: the only one, or the first of several.

    Raises:
        PalamError: see [`train`]; with a loss that is not finite, it names the last checkpoint.
        KeyboardInterrupt: the run was stopped; it says whether it can be resumed.
    """
    check_writable(out)
    from rich.console import Console

    from palam.training.run import train
    from palam.training.trainer import NonFiniteLoss, newest_checkpoint

    silence_libraries()
    tell_task_settings(config.data.task, config.settings())
    partial = out.with_name(f"{out.name}.partial")
    try:
        train(config, out, resume=resume, console=Console(stderr=True))
    except KeyboardInterrupt:
        advice = "no checkpoint was saved yet, so there is nothing to resume"
        if newest_checkpoint(partial):
            advice = "to resume, give the same command with --resume"
        raise KeyboardInterrupt(advice) from None
    except NonFiniteLoss as error:
        last_checkpoint = newest_checkpoint(partial)
        if last_checkpoint is None:
            raise PalamError(str(error)) from None
        raise PalamError(f"{error}; the last good checkpoint is {last_checkpoint}") from None
    leave_processes()
    if is_main():
        print(f"saved to {out}", file=sys.stderr)
    return is_main()


def tell_task_settings(task: str | None, settings: Mapping[str, Any]) -> None:
    """Say which settings of a run are as its task has them; the first of several processes does.

    Args:
        task: that is trained on, or None.
        settings: of the run, by name.
    """
    own = settings_of_task(task, settings)
    if own and is_main():
        listed = ", ".join(f"{name} {value}" for name, value in own.items())
        print(f"settings of the task {task}: {listed}", file=sys.stderr)
