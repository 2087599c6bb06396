"""LangBridge's choice (ACL 2024): the encoder's last layer alone."""

from collections.abc import Sequence

from torch import Tensor

from palam.models.fusion.base import Fusion


class LastLayer(Fusion):
    """z = h_L."""

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, None]:
        """See [`Fusion.forward`]."""
        return self.prepare(states[-1]), None
