"""`palam info`."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from palam.cli._options import silence_libraries
from palam.cli._output import print_values
from palam.models.model_config import option_defaults
from palam.models.registry import FUSIONS, MAPPERS
from palam.tasks.registry import TASKS
from palam.utils.registry import Registry

PACKAGES = ("palam", "torch", "transformers", "accelerate", "tokenizers")


def info(checkpoint: str | None = None, /) -> None:
    """Describe this installation, or a bridge.

    Of the installation: versions, device, fusions and mappers with their options, and tasks.

    Args:
        checkpoint: A bridge to describe: folder, hub id or starter:bridge; not set is this
            installation.
    """
    silence_libraries()
    if checkpoint is None:
        print_values(_describe_installation())
    else:
        print_values(_describe_bridge(checkpoint))


def _describe_installation() -> dict[str, str]:
    from palam.utils.device import dtype_name, pick_device, pick_dtype

    device = pick_device()
    values = {package: version(package) for package in PACKAGES}
    values["python"] = platform.python_version()
    values["device"] = str(device)
    values["dtype"] = dtype_name(pick_dtype("auto", device))
    values["fusions"] = _describe_registry(FUSIONS)
    values["mappers"] = _describe_registry(MAPPERS)
    values["tasks"] = ", ".join(TASKS)
    return values


def _describe_registry(registry: Registry[Any]) -> str:
    """The names, a line each, with their options and the options' defaults."""
    return "\n".join(_with_options(name, option_defaults(registry, name)) for name in registry)


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    return ", ".join([name, *(f"{option} {value}" for option, value in options.items())])


def _describe_bridge(checkpoint: str) -> dict[str, str]:
    from palam.models.checkpoint import load_bridge
    from palam.models.model_card import public_name

    bridge = load_bridge(checkpoint)
    config = bridge.config
    lora = ", with LoRA" if config.adapter else ""
    num_parameters = sum(parameter.numel() for parameter in bridge.parameters())
    values = {
        "encoder": f"{public_name(config.encoder)}: {config.encoder_num_layers} layers, "
        f"{config.encoder_hidden_size} wide",
        "LLM": f"{public_name(config.llm)}: {config.llm_hidden_size} wide{lora}",
        "fusion": _with_options(config.fusion, config.fusion_options),
        "mapper": _with_options(config.mapper, config.mapper_options),
        "parameters": f"{num_parameters:,}",
    }
    if config.second_encoder is not None:
        values["second encoder"] = (
            f"{public_name(config.second_encoder)}: {config.second_encoder_num_layers} layers, "
            f"{config.second_encoder_hidden_size} wide"
        )
    task = config.trained_task
    if task is not None:
        values["task"] = f"{task.name} ({task.family})"
        values["answers"] = ", ".join(task.words_by_label.values())
    return values
