"""The plain mean of all layers: what any learned weighting has to beat."""

from collections.abc import Sequence

from torch import Tensor

from palam.models.fusion.base import Fusion, mix


class Mean(Fusion):
    """z = (1/L) Σ_l h_l."""

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See [`Fusion.forward`]."""
        weights = states[0].new_full((self.num_layers,), 1 / self.num_layers)
        fused = mix([self.prepare(state) for state in states], weights)
        return fused, weights.expand(*fused.shape[:-1], -1)
