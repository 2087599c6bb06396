"""What the methods of a recipe are, in words, for readers of its report."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from palam.bench.baseline_registry import BaselineEntry
from palam.bench.methods import BaselineMethod, ChoiceMethod, Method, TrainedMethod
from palam.models.model_card import public_name
from palam.models.model_config import ModelConfig
from palam.models.registry import FUSIONS
from palam.training.config import task_settings

UNSAID = ("fusion", "llm_only", "lora_rank", "init")
"""Settings that have words of their own; others are named with their values."""


def is_bridge(method: Method) -> bool:
    """Whether a method is a trained bridge, or a choice among some."""
    if isinstance(method, TrainedMethod):
        return not method.settings.get("llm_only")
    return isinstance(method, ChoiceMethod)


def describe_method(method: Method, train: Mapping[str, Any]) -> str:
    """One line on a method.

    Args:
        method: of a recipe.
        train: the recipe's settings of training, which a trained method changes.
    """
    if isinstance(method, ChoiceMethod):
        names = ", ".join(method.best_of)
        return f"For each seed the one with the lowest validation loss of {names}"
    if isinstance(method, BaselineMethod):
        values = {
            name: _of_baseline(method.entry, name, value) for name, value in method.settings.items()
        }
        return method.entry.words.format(**values)
    settings = {**train, **method.settings}
    settings = task_settings(settings) | settings
    parts = [_trained(settings)]
    if settings.get("init") == "random" and not settings.get("llm_only"):
        parts.append("Its mapper starts at random, not solved")
    for name, value in method.settings.items():
        if name not in UNSAID:
            parts.append(f"{_words(name).capitalize()}: {_shown(value)}")
    if method.learning_rates:
        rates = [f"{rate:g}" for rate in method.learning_rates]
        parts.append(f"Learning rate: {' or '.join(rates)}")
    return ". ".join(parts)


def _of_baseline(entry: BaselineEntry, name: str, value: Any) -> str:
    """A baseline's setting in words: a choice's own, a base model's public name, or the value."""
    if name in entry.choices:
        return entry.choices[name][value]
    return public_name(value) if isinstance(value, str) else _shown(value)


def _words(name: str) -> str:
    """A setting's name as words."""
    return name.replace("_", " ")


def _shown(value: Any) -> str:
    """A setting's value; of options by name, each name before its value: `rank 32`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name)} {option}" for name, option in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _trained(settings: Mapping[str, Any]) -> str:
    """What is trained."""
    rank = settings.get("lora_rank")
    if settings.get("llm_only"):
        return f"A LoRA of rank {rank} is trained on the LLM, which reads the text itself"
    fusion = describe_fusion(str(settings.get("fusion", ModelConfig.fusion)))
    if rank:
        return f"A bridge, and a LoRA of rank {rank} on the LLM. {fusion}"
    return f"A bridge. {fusion}"


def describe_fusion(name: str) -> str:
    """The first line that a fusion's file, or its class if that is somebody's own, says of it."""
    fusion = FUSIONS[name]
    module = fusion.__module__
    source = sys.modules[module] if module.startswith("palam.") else fusion
    text = inspect.getdoc(source) or name
    return text.splitlines()[0].rstrip(".")
