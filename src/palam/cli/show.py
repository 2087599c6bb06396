"""`palam inspect` and `palam info`."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palam.bridge import load_bridge
from palam.card import public_name
from palam.cli.options import (
    CheckpointArgument,
    DeviceOption,
    DtypeOption,
    EncoderOption,
    LanguageOption,
    LLMOption,
    load,
)
from palam.device import dtype_name, pick_device, pick_dtype
from palam.fusion import FUSIONS
from palam.mapper import MAPPERS
from palam.report import LayerView, check_path, save, table
from palam.tasks import TASKS


def inspect_command(
    checkpoint: CheckpointArgument,
    text: Annotated[str, typer.Option(help="The text to look at.")],
    out: Annotated[Path | None, typer.Option(help="Write a picture: a .png, .html or .json file.")] = None,
    language: LanguageOption = None,
    encoder: EncoderOption = None,
    llm: LLMOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Show how much each encoder layer counts for each token: weight, and weight × norm."""
    if out is not None:
        check_path(out)
    view = LayerView.of(load(checkpoint, encoder, llm, device, dtype), text, language)
    console = Console()
    shown = table(view)
    console.print(shown, width=max(console.width, console.measure(shown).maximum) if not console.is_terminal else None)
    if out is not None:
        save(view, out)
        typer.echo(f"written to {out}", err=True)


def info_command(
    checkpoint: Annotated[str | None, typer.Argument(help="A bridge to describe: folder or hub id.")] = None,
) -> None:
    """Describe this installation, or a bridge."""
    rows = Table(show_header=False, box=None)
    if checkpoint is not None:
        bridge = load_bridge(checkpoint)
        config = bridge.config
        rows.add_row("encoder", f"{public_name(config.encoder)}: {config.encoder_num_layers} layers, "
                     f"{config.encoder_hidden_size} wide")
        rows.add_row("LLM", f"{public_name(config.llm)}: {config.llm_hidden_size} wide")
        rows.add_row("fusion", f"{config.fusion} {config.fusion_options or ''}")
        rows.add_row("mapper", f"{config.mapper} {config.mapper_options or ''}")
        rows.add_row("parameters", f"{sum(p.numel() for p in bridge.parameters()):,}")
        if config.task:
            words = ", ".join(words for _, words in config.task["labels"])
            rows.add_row("task", f"{config.task['name']} ({config.task['family']}): {words}")
    else:
        device = pick_device()
        rows.add_row("palam", version("palam"))
        for package in ("torch", "transformers", "accelerate", "tokenizers"):
            rows.add_row(package, version(package))
        rows.add_row("Python", platform.python_version())
        rows.add_row("device", str(device))
        rows.add_row("dtype", dtype_name(pick_dtype("auto", device)))
        rows.add_row("fusions", ", ".join(FUSIONS))
        rows.add_row("mappers", ", ".join(MAPPERS))
        rows.add_row("tasks", ", ".join(TASKS))
    Console().print(rows)
