"""What every fusion shares: the shape of its input and output, and per-layer normalisation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palam.errors import PalamError

NORMALIZE = ("none", "layer")


class Fusion(nn.Module, ABC):
    """Turns the encoder's L layers into one state per token.

    A fusion's own options are the constructor's parameters after these three, each with a default.

    Args:
        hidden_size: width d of the encoder's states.
        num_layers: number L of layers.
        normalize: `"none"` takes the states as the encoder returns them (the paper); `"layer"`
            applies LayerNorm over the width (no affine, eps 1e-5) to each token and layer before
            anything else, so that a layer's weight is not confounded with its norm.

    Raises:
        PalamError: another `normalize`.
    """

    learning_rate: float | None = None
    """Default learning rate of this fusion's own weights; None is the mapper's."""

    def __init__(self, hidden_size: int, num_layers: int, normalize: str) -> None:
        super().__init__()
        if normalize not in NORMALIZE:
            listed = ", ".join(NORMALIZE)
            raise PalamError(f"normalize is {normalize!r}; it must be one of: {listed}")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.normalize = normalize

    @property
    def output_size(self) -> int:
        """Width of the fused state."""
        return self.hidden_size

    def prepare(self, state: Tensor) -> Tensor:
        """One layer's states [..., d], normalised if asked for."""
        if self.normalize == "layer":
            return F.layer_norm(state, (self.hidden_size,), eps=1e-5)
        return state

    @abstractmethod
    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse.

        Args:
            states: L tensors [..., d], `hidden_states[1:]` of the encoder.

        Returns:
            The fused states [..., output_size], and each token's layer weights [..., L] (None
            where a fusion has none).
        """


def mix(states: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ_l weights[..., l] · states[l], layer by layer: the stack of all layers is never built.

    Args:
        states: L tensors [..., d].
        weights: [..., L], or [L] for all tokens alike.
    """
    mixed = weights[..., 0, None] * states[0]
    for layer, state in enumerate(states[1:], start=1):
        weight = weights[..., layer, None].to(mixed.dtype)
        mixed = torch.addcmul(mixed, weight, state.to(mixed.dtype))
    return mixed
