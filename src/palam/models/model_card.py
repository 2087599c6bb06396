"""The model card: written from the run's settings and results."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palam.models.configuration import PalamConfig
from palam.models.template import Template
from palam.starter import SOURCES, origin
from palam.utils.templating import render

CARD = "README.md"


def public_name(base: str) -> str:
    """What to call a base model elsewhere: its hub id where that is known, else its folder's name."""
    if base in SOURCES:
        return SOURCES[base].hub_id
    return origin(base) or (Path(base).name if Path(base).is_dir() else base)


def on_hub(base: str) -> bool:
    """Whether a base model's public name is a hub id; the hub refuses a card that names any other."""
    named = base in SOURCES or origin(base) is not None
    return named or (
        re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) is not None and not Path(base).is_dir()
    )


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

    Args:
        config: of the bridge.
        parameters: how many the bridge has.
        template, max_length: of its processor.
        english: whether it was trained on English text alone.
        settings: of the run, as YAML; or None.
        results: of the run, by name; nested ones are left out.
    """
    bases = (config.encoder, config.llm)
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in (results or {}).items()
        if value is not None and not isinstance(value, dict)
    }
    return render(
        "palam.models",
        "card.md.j2",
        config=config,
        bases=[public_name(base) for base in bases],
        hub_ids=[public_name(base) for base in bases if on_hub(base)],
        parameters=f"{parameters:,}",
        english=english,
        labels=[words for _, words in config.task["labels"]] if config.task else [],
        template=template,
        max_length=max_length,
        facts=shown,
        settings=settings,
    )
