"""The bridges of a server, over base models that are loaded once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.models.shared_bases import load_models
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
        task = self.model.config.trained_task
        return {} if task is None else dict(task.words_by_label)


def load_bridges(
    paths: Sequence[str],
    placement: Placement,
    *,
    encoder: str | None = None,
    llm: str | None = None,
    second_encoder: str | None = None,
    allow_mismatch: bool = False,
) -> list[ServedBridge]:
    """Load checkpoints; those that name the same base models share them, see [`load_models`].

    Args:
        paths: checkpoint folders or hub ids; a folder is called by its own name.
        placement: of the base models.
        encoder, llm, second_encoder, allow_mismatch: see [`PalamModel.from_pretrained`].

    Raises:
        PalamError: a checkpoint that cannot be loaded, or two of one name.
    """
    names = [bridge_name(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise PalamError(f"two bridges are called {name!r}; rename the folder of one")
    models = load_models(
        paths,
        placement,
        encoder=encoder,
        llm=llm,
        second_encoder=second_encoder,
        allow_mismatch=allow_mismatch,
    )
    return [ServedBridge(name, model) for name, model in zip(names, models, strict=True)]


def bridge_name(path: str) -> str:
    """What a bridge is called: its folder's own name, or its name on the hub."""
    return PurePath(path.rstrip("/\\")).name or path
