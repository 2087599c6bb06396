"""What turns the encoder's tokens into mapped text: the live encoder, or one whose states are kept."""

from typing import Any, Protocol

from torch import Tensor

from palam.models.backbones.encoder import encode
from palam.models.bridge import PalamBridge


class TextEncoding(Protocol):
    """From the encoder's tokens to vectors in the LLM's embedding space."""

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The real tokens of all rows, mapped: [tokens, d_llm].

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        ...


class LiveEncoding:
    """Reads every text anew."""

    def __init__(self, encoder: Any, bridge: PalamBridge) -> None:
        self.encoder = encoder
        self.bridge = bridge

    def layers(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's L layers at the real tokens: L tensors [tokens, d_enc], with the bridge.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        mask = mask.to(self.encoder.device)
        states = encode(self.encoder, ids.to(mask.device), mask)
        real = mask.nonzero(as_tuple=True)
        return [state[real].to(self.bridge.device) for state in states]

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See [`TextEncoding.mapped`]."""
        mapped, _ = self.bridge(self.layers(ids, mask))
        return mapped
