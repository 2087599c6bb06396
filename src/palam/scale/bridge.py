"""A bridge as a command knows it: the loaded model, or what workers that have loaded it tell."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    from palam.models.configuration import PalamConfig
    from palam.models.modeling import PalamModel
    from palam.models.processing import PalamProcessor


@dataclass(frozen=True)
class BridgeView:
    """What a process knows of a bridge whose weights are in others."""

    config: "PalamConfig"
    processor: "PalamProcessor"
    """Counts what was lost of the texts that all of them read."""
    identity: dict[str, Any]
    """See [`model_identity`]."""


Bridge: TypeAlias = Union["PalamModel", BridgeView]


def identity_of(bridge: Bridge) -> dict[str, Any]:
    """The identity of a model, see [`model_identity`]."""
    from palam.scale.identity import model_identity

    return bridge.identity if isinstance(bridge, BridgeView) else model_identity(bridge)
