"""Global Softmax (arXiv 2508.09091): one learned weight per layer, the same for every token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from palam.models.fusion.base import Fusion, mix


class GlobalSoftmax(Fusion):
    """z = Σ_l softmax(a)_l · h_l with a ∈ R^L learned, starting from equal weights.

    Args:
        hidden_size, num_layers, normalize: see [`Fusion`].
        paper_temperature: the paper's experiments weight by softmax((100 + 1e5·t)·a) with a and t
            learned from a = 3e-5, t = 1e-5. It is a learning-rate trick; a learning rate of its own
            for the fusion says the same plainly, so the default is off.
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int,
        normalize: str,
        paper_temperature: bool = False,
    ) -> None:
        super().__init__(hidden_size, num_layers, normalize)
        self.paper_temperature = paper_temperature
        start = 3e-5 if paper_temperature else 0.0
        self.scores = nn.Parameter(torch.full((num_layers,), start))
        if paper_temperature:
            self.temperature = nn.Parameter(torch.tensor(1e-5))

    def layer_weights(self) -> Tensor:
        """The weights of the layers [L], summing to 1."""
        factor = 100 + 1e5 * self.temperature if self.paper_temperature else 1
        return (factor * self.scores).softmax(-1)

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See [`Fusion.forward`]."""
        weights = self.layer_weights()
        fused = mix([self.prepare(state) for state in states], weights)
        return fused, weights.expand(*fused.shape[:-1], -1)
