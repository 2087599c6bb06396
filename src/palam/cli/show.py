"""`palam inspect` and `palam info`."""
# ruff: noqa: B008 (an option with its default is typer's own form)

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typer import Argument, Option, echo

from palam.cli.options import CheckpointArgument, Loading, load, options_of, quiet
from palam.cli.output import show, show_facts
from palam.inference import layer_weights as layers
from palam.models.checkpoint import load_bridge
from palam.models.fusion import FUSIONS
from palam.models.mapper import MAPPERS
from palam.models.model_card import public_name
from palam.tasks.registry import TASKS
from palam.utils.device import dtype_name, pick_device, pick_dtype


@options_of(Loading)
def inspect_command(
    checkpoint: CheckpointArgument,
    text: str = Option(help="The text to look at."),
    out: Path | None = Option(
        None, help="Write it too: as a picture (.png), a page (.html) or data (.json)."
    ),
    **loading: Any,
) -> None:
    """Show how much each encoder layer counts for each token: by weight, and by weight × norm."""
    if out is not None:
        layers.check_path(out)
    model = load(checkpoint, Loading(**loading))
    view = layers.LayerView.of(model, text, loading["language"])
    show(layers.table(view))
    if out is not None:
        layers.save(view, out)
        echo(f"written to {out}", err=True)


def info_command(
    checkpoint: str | None = Argument(
        None, help="A bridge to describe: folder or hub id; none is this installation."
    ),
) -> None:
    """Describe a bridge; or this installation: versions, device, and the fusions, mappers and tasks there are."""
    quiet()
    show_facts(_installation() if checkpoint is None else _bridge(checkpoint))


def _installation() -> dict[str, Any]:
    device = pick_device()
    return {
        **{
            package: version(package)
            for package in ("palam", "torch", "transformers", "accelerate", "tokenizers")
        },
        "python": platform.python_version(),
        "device": device,
        "dtype": dtype_name(pick_dtype("auto", device)),
        "fusions": ", ".join(FUSIONS),
        "mappers": ", ".join(MAPPERS),
        "tasks": ", ".join(TASKS),
    }


def _bridge(checkpoint: str) -> dict[str, Any]:
    bridge = load_bridge(checkpoint)
    config = bridge.config
    parts = ((config.fusion, config.fusion_options), (config.mapper, config.mapper_options))
    fusion, mapper = (
        ", ".join([name, *(f"{key} {options[key]}" for key in options)]) for name, options in parts
    )
    facts = {
        "encoder": f"{public_name(config.encoder)}: {config.encoder_num_layers} layers, "
        f"{config.encoder_hidden_size} wide",
        "LLM": f"{public_name(config.llm)}: {config.llm_hidden_size} wide"
        + (", with LoRA" if config.adapter else ""),
        "fusion": fusion,
        "mapper": mapper,
        "parameters": f"{sum(parameter.numel() for parameter in bridge.parameters()):,}",
    }
    if config.task:
        words = ", ".join(words for _, words in config.task["labels"])
        facts |= {"task": f"{config.task['name']} ({config.task['family']})", "answers": words}
    return facts
