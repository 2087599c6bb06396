"""The plain mean of layers: what any learned weighting has to beat."""

from collections.abc import Sequence

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.fusion.base import Fusion, mix


class Mean(Fusion):
    """z = 1/(L - f + 1) Σ_{l ≥ f} h_l, from the first layer f that counts.

    The lowest layers hold the surface of a word, which other languages do not share.

    Args:
        hidden_size, num_layers, normalize: see [`Fusion`].
        first_layer: f, counted from 1; 1 is the mean of all layers.

    Raises:
        PalamError: a first layer that the encoder does not have.
    """

    def __init__(
        self, hidden_size: int, num_layers: int, normalize: str, first_layer: int = 1
    ) -> None:
        super().__init__(hidden_size, num_layers, normalize)
        if not 1 <= first_layer <= num_layers:
            raise PalamError(
                f"first_layer is {first_layer}; the encoder has the layers 1 to {num_layers}"
            )
        self.first_layer = first_layer

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See [`Fusion.forward`]."""
        left_out = self.first_layer - 1
        dtype = states[0].dtype
        # In bf16 the weights would not sum to 1, and each layer's term would be rounded.
        weights = states[0].new_zeros(
            self.num_layers, dtype=torch.promote_types(dtype, torch.float32)
        )
        weights[left_out:] = 1 / (self.num_layers - left_out)
        used = [self.prepare(state) for state in states[left_out:]]
        fused = mix(used, weights[left_out:]).to(dtype)
        return fused, weights.expand(*fused.shape[:-1], -1)
