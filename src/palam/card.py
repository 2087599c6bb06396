"""The model card: written from the run's settings and results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from palam.languages import lookup
from palam.starter import SOURCES, origin

if TYPE_CHECKING:
    from palam.model import PalamModel
    from palam.training import TrainSettings

CARD = "README.md"


def render(name: str, /, **values: Any) -> str:
    """Fill one of the package's templates; HTML templates escape what is put in."""
    environment = Environment(
        loader=PackageLoader("palam", "templates"),
        undefined=StrictUndefined,
        autoescape=name.endswith(".html.j2"),
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", r"\|").replace("\n", " ")
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template(name).render(**values)


def public_name(base: str) -> str:
    """What to call a base model elsewhere: its hub id where that is known, else its folder's name."""
    if base in SOURCES:
        return SOURCES[base].hub_id
    return origin(base) or (Path(base).name if Path(base).is_dir() else base)


def on_hub(base: str) -> bool:
    """Whether a base model's public name is a hub id; the hub refuses a card that names any other."""
    named = base in SOURCES or origin(base) is not None
    return named or (re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) is not None and not Path(base).is_dir())


def model_card(model: PalamModel, settings: TrainSettings | None = None, facts: dict[str, Any] | None = None) -> str:
    """The text of a checkpoint's README.md.

    Args:
        model: the bridge and what it joins.
        settings: of the run, or None.
        facts: results of the run, or None. Nested ones are left out.
    """
    config = model.config
    shown = {name: value for name, value in (facts or {}).items() if value is not None and not isinstance(value, dict)}
    return render(
        "card.md.j2", config=config, bases=[public_name(base) for base in (config.encoder, config.llm)],
        hub_ids=[public_name(base) for base in (config.encoder, config.llm) if on_hub(base)],
        parameters=f"{sum(p.numel() for p in model.bridge.parameters()):,}",
        english=settings is not None and lookup(settings.language or "en") == lookup("en"),
        labels=[words for _, words in config.task["labels"]] if config.task else [],
        template=model.processor.template, max_length=model.processor.max_length,
        facts={name: f"{value:.4g}" if isinstance(value, float) else value for name, value in shown.items()},
        settings=settings.to_yaml() if settings is not None else None,
    )  # fmt: skip
