"""`palam inspect` and `palam info`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from palam.cli.options import CheckpointArgument, Loading, load, options_of, quiet
from palam.cli.output import show


@options_of(Loading)
def inspect_command(
    checkpoint: CheckpointArgument,
    text: Annotated[str, typer.Option(help="The text to look at.")],
    out: Annotated[
        Path | None, typer.Option(help="Write it too: as a picture (.png), a page (.html) or data (.json).")
    ] = None,
    **loading: Any,
) -> None:
    """Show how much each encoder layer counts for each token: by weight, and by weight × norm."""
    from palam import report

    if out is not None:
        report.check_path(out)
    model = load(checkpoint, **loading)
    view = report.LayerView.of(model, text, loading["language"])
    show(report.table(view))
    if out is not None:
        report.save(view, out)
        typer.echo(f"written to {out}", err=True)


def info_command(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A bridge to describe: folder or hub id; not given is this installation.")
    ] = None,
) -> None:
    """Describe a bridge; or this installation: versions, device, and the fusions, mappers and tasks there are."""
    quiet()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (_installation() if checkpoint is None else _bridge(checkpoint)).items():
        table.add_row(name, Text(str(value)))
    show(table)


def _installation() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    from palam.device import dtype_name, pick_device, pick_dtype
    from palam.fusion import FUSIONS
    from palam.mapper import MAPPERS
    from palam.tasks import TASKS

    device = pick_device()
    return {
        **{package: version(package) for package in ("palam", "torch", "transformers", "accelerate", "tokenizers")},
        "python": platform.python_version(),
        "device": device,
        "dtype": dtype_name(pick_dtype("auto", device)),
        "fusions": ", ".join(FUSIONS),
        "mappers": ", ".join(MAPPERS),
        "tasks": ", ".join(TASKS),
    }


def _bridge(checkpoint: str) -> dict[str, Any]:
    from palam.bridge import load_bridge
    from palam.card import public_name

    bridge = load_bridge(checkpoint)
    config = bridge.config

    def part(name: str, options: dict[str, Any]) -> str:
        return ", ".join([name, *(f"{key} {value}" for key, value in options.items())])

    facts = {
        "encoder": f"{public_name(config.encoder)}: {config.encoder_num_layers} layers, "
        f"{config.encoder_hidden_size} wide",
        "LLM": f"{public_name(config.llm)}: {config.llm_hidden_size} wide" + (", with LoRA" if config.adapter else ""),
        "fusion": part(config.fusion, config.fusion_options),
        "mapper": part(config.mapper, config.mapper_options),
        "parameters": f"{sum(parameter.numel() for parameter in bridge.parameters()):,}",
    }
    if config.task:
        words = ", ".join(words for _, words in config.task["labels"])
        facts |= {"task": f"{config.task['name']} ({config.task['family']})", "answers": words}
    return facts
