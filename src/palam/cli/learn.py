"""`palam train` and `palam quickstart`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from palam.cli.options import ConfigOption, options_of
from palam.training import TrainSettings, train


@options_of(TrainSettings)
def train_command(
    out: Annotated[Path, typer.Option(help="The checkpoint's folder; <out>.partial until the run is complete.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    config: ConfigOption = None,
    **settings: Any,
) -> None:
    """Train a bridge on English, on a task, a file of your own, or raw text."""
    console = Console(stderr=True)
    train(TrainSettings(**settings), out, resume=resume, console=console)
    console.print(f"saved to {out}")
    if settings["task"]:
        console.print(f"next: palam evaluate {out} --task {settings['task']}", highlight=False)


def quickstart_command(
    out: Annotated[Path, typer.Option(help="Folder for the bridge and the report.")] = Path("palam-quickstart"),
    data: Annotated[Path | None, typer.Option(help="Folder with real SIB-200 data, in place of the demo's.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Only a few steps and languages, to see that it works.")] = False,
) -> None:
    """Fetch the starter models, train on English, read languages never trained on, and write a report."""
    from palam.quickstart import quickstart

    quickstart(out, data=data, short=short, console=Console())
