"""The bridges of a server, over base models that are loaded once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from palam.errors import PalamError
from palam.models.checkpoint import load_bridge
from palam.models.configuration import PalamConfig
from palam.models.modeling import PalamModel
from palam.utils.device import Placement


@dataclass(frozen=True, eq=False)
class ServedBridge:
    """A bridge that can be asked."""

    name: str
    """What requests call it."""
    model: PalamModel
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    @property
    def words_by_label(self) -> dict[str, str]:
        """The labels that it was trained on, with the words that the LLM answers; may be none."""
        task = self.model.config.task or {}
        return dict(task.get("labels", ()))


class _BaseKey(NamedTuple):
    """Which base model a bridge names."""

    role: str
    name: str
    revision: str | None


def load_bridges(
    paths: Sequence[str],
    placement: Placement,
    *,
    encoder: str | None = None,
    llm: str | None = None,
    allow_mismatch: bool = False,
) -> list[ServedBridge]:
    """Load checkpoints; those that name the same base models share them.

    An LLM that a LoRA changes is not shared, and a base model at a revision of the hub is loaded
    for each bridge.

    Args:
        paths: checkpoint folders or hub ids; a folder is called by its own name.
        placement: of the base models.
        encoder, llm, allow_mismatch: see [`PalamModel.from_pretrained`].

    Raises:
        PalamError: a checkpoint that cannot be loaded, or two of one name.
    """
    names = [bridge_name(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise PalamError(f"two bridges are called {name!r}; rename the folder of one")
    shared: dict[_BaseKey, Any] = {}
    bridges = []
    for name, path in zip(names, paths, strict=True):
        config = load_bridge(path).config
        encoder_key = _BaseKey("encoder", encoder or config.encoder, config.encoder_revision)
        llm_key = _BaseKey("llm", llm or config.llm, config.llm_revision)
        model = PalamModel.from_pretrained(
            path,
            shared.get(encoder_key, encoder),
            llm if config.adapter else shared.get(llm_key, llm),
            allow_mismatch=allow_mismatch,
            **placement,
        )
        _share(shared, config, encoder_key, llm_key, model)
        bridges.append(ServedBridge(name, model))
    return bridges


def _share(
    shared: dict[_BaseKey, Any],
    config: PalamConfig,
    encoder_key: _BaseKey,
    llm_key: _BaseKey,
    model: PalamModel,
) -> None:
    """Keep a bridge's base models for the next ones."""
    if encoder_key.revision is None:
        shared.setdefault(encoder_key, model.encoder)
    if llm_key.revision is None and not config.adapter:
        shared.setdefault(llm_key, model.llm)


def bridge_name(path: str) -> str:
    """What a bridge is called: its folder's own name, or its name on the hub."""
    return PurePath(path.rstrip("/\\")).name or path
