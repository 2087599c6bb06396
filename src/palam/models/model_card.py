"""The model card: a checkpoint's README.md, from its configuration and its run's results."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from palam.models.configuration import PalamConfig
from palam.models.template import Template
from palam.starter.marker import origin
from palam.starter.sources import SOURCES
from palam.utils.templating import render

CARD = "README.md"
TAGS = ["palam", "multilingual", "zero-shot"]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def public_name(base: str) -> str:
    """What to call a base model elsewhere: its hub id, or its folder's name if that is not known.

    Args:
        base: hub id, folder, `starter:encoder` or `starter:llm`.
    """
    if base in SOURCES:
        return SOURCES[base].hub_id
    hub_id = origin(base)
    if hub_id:
        return hub_id
    return Path(base).name if Path(base).is_dir() else base


def on_hub(base: str) -> bool:
    """Whether a base model's public name is a hub id; the hub refuses a card that names another."""
    if base in SOURCES or origin(base) is not None:
        return True
    return HUB_ID.fullmatch(base) is not None and not Path(base).is_dir()


def model_card(
    config: PalamConfig,
    *,
    parameters: int,
    template: Template,
    max_length: int,
    english: bool = False,
    settings: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """The text of a checkpoint's README.md.

    No folder of this machine that holds a base model is named in it.

    Args:
        config: of the bridge.
        parameters: how many the bridge has.
        template, max_length: of its processor.
        english: whether it was trained on English text alone.
        settings: of the run, as YAML; or None.
        results: of the run, by name; nested ones are left out. `validation_accuracy` is also given
            as the hub's model index has it.
    """
    results = results or {}
    bases = [config.encoder, config.llm]
    body = render(
        "palam.models",
        "card.md.j2",
        metadata=_metadata(config, results).to_yaml(),
        config=config,
        bases=[public_name(base) for base in bases],
        parameters=f"{parameters:,}",
        english=english,
        labels=[words for _, words in config.task["labels"]] if config.task else [],
        template=template,
        max_length=max_length,
        results=_shown_results(results),
        settings=None if settings is None else _public_settings(settings),
    )
    return str(ModelCard(body))


def _metadata(config: PalamConfig, results: Mapping[str, Any]) -> ModelCardData:
    """What the hub indexes. The bridge's licence is the user's to choose, and left out."""
    bases = [config.encoder, config.llm]
    hub_ids = [public_name(base) for base in bases if on_hub(base)]
    accuracy = results.get("validation_accuracy")
    evaluations = None
    if accuracy is not None and config.task:
        evaluations = [
            EvalResult(
                task_type="text-classification",
                dataset_type=config.task["name"],
                dataset_name=config.task["name"],
                dataset_split="validation",
                metric_type="accuracy",
                metric_value=round(accuracy, 4),
            )
        ]
    return ModelCardData(
        library_name="palam",
        tags=TAGS,
        base_model=hub_ids or None,
        model_name=" → ".join(public_name(base) for base in bases) if evaluations else None,
        eval_results=evaluations,
    )


def _shown_results(results: Mapping[str, Any]) -> dict[str, str]:
    """The results that one cell of a table can hold, in words."""
    shown = {}
    for name, value in results.items():
        if value is not None and not isinstance(value, Mapping):
            in_words = name.replace("_", " ")
            shown[in_words] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown


def _public_settings(settings: str) -> str:
    """A run's settings as YAML, with base models' folders by their public names."""
    values = yaml.safe_load(settings)
    for part in ("encoder", "llm"):
        base = values.get(part)
        if base and Path(base).is_dir():
            values[part] = public_name(base)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
