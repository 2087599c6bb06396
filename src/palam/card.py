"""The model card: written from the run's settings and results."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from palam.languages import lookup
from palam.model import PalamModel
from palam.starter import SOURCES, origin


def render(name: str, /, **values: Any) -> str:
    """Fill one of the package's templates; HTML templates escape what is put in."""
    environment = Environment(
        loader=PackageLoader("palam", "templates"),
        undefined=StrictUndefined,
        autoescape=name.endswith(".html.j2"),
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)


def public_name(base: str) -> str:
    """A base model's hub id where it is known: a starter model's, or a folder converted from one."""
    return SOURCES[base].hub_id if base in SOURCES else origin(base) or base


def model_card(model: PalamModel, settings: Any = None, facts: dict[str, Any] | None = None) -> str:
    """The text of a checkpoint's README.md.

    Args:
        model: the bridge and what it joins.
        settings: [`TrainSettings`] of the run, or None.
        facts: results of the run, or None.
    """
    config = model.config
    language = lookup(settings.language) if settings is not None and settings.language else None
    shown = {key: value for key, value in (facts or {}).items() if not isinstance(value, dict)}
    return render(
        "card.md.j2",
        config=config,
        bases=[public_name(base) for base in (config.encoder, config.llm)],
        parameters=f"{sum(p.numel() for p in model.bridge.parameters()):,}",
        english=language is None or language.code == "eng_Latn",
        labels=[words for _, words in config.task["labels"]] if config.task else [],
        template=model.processor.template,
        max_length=model.processor.max_length,
        facts={k: f"{v:.4g}" if isinstance(v, float) else v for k, v in shown.items()},
        settings=settings.to_yaml() if settings is not None else None,
    )
