"""The bridges of a server, over base models that are loaded once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from transformers import PreTrainedModel

from palam.errors import PalamError
from palam.models.bases import BaseName
from palam.models.checkpoint import load_bridge
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


def load_bridges(
    paths: Sequence[str],
    placement: Placement,
    *,
    encoder: str | None = None,
    llm: str | None = None,
    allow_mismatch: bool = False,
) -> list[ServedBridge]:
    """Load checkpoints; those that name the same base models share them.

    An LLM that a LoRA changes is not shared.

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
    encoders: dict[BaseName, PreTrainedModel] = {}
    llms: dict[BaseName, PreTrainedModel] = {}
    bridges = []
    for name, path in zip(names, paths, strict=True):
        config = load_bridge(path).config
        encoder_name = _base_name(encoder, config.encoder, config.encoder_revision)
        llm_name = _base_name(llm, config.llm, config.llm_revision)
        model = PalamModel.from_pretrained(
            path,
            encoders.get(encoder_name, encoder),
            llm if config.adapter else llms.get(llm_name, llm),
            allow_mismatch=allow_mismatch,
            **placement,
        )
        encoders[encoder_name] = model.encoder
        if not config.adapter:
            llms[llm_name] = model.llm
        bridges.append(ServedBridge(name, model))
    return bridges


def _base_name(given: str | None, name: str, revision: str | None) -> BaseName:
    """The base model that a bridge is loaded with.

    Args:
        given: in place of what the bridge says.
        name, revision: what the bridge says.
    """
    return BaseName(name, revision) if given is None else BaseName(given, None)


def bridge_name(path: str) -> str:
    """What a bridge is called: its folder's own name, or its name on the hub."""
    return PurePath(path.rstrip("/\\")).name or path
