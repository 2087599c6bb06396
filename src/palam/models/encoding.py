"""What turns the encoder's tokens into mapped text: the encoder itself, or states kept of it."""

from typing import Any, Protocol

from torch import Tensor

from palam.models.backbones.encoder_pair import EncoderPair, real_states
from palam.models.bridge import PalamBridge
from palam.models.finite import check_finite


class TextEncoding(Protocol):
    """From the encoder's tokens to vectors in the LLM's embedding space."""

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The real tokens of all rows, mapped: [tokens, d_llm], row after row.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens]; of two
                encoders, rows of [`join_tokens`], of which the first one's tokens are mapped.
        """
        ...


class LiveEncoding:
    """A [`TextEncoding`] that reads every text anew.

    Args:
        encoder: of [`load_encoder`], or a pair of them.
        bridge: it fuses and maps; on any device.
    """

    def __init__(self, encoder: Any, bridge: PalamBridge) -> None:
        self.encoder = encoder
        self.bridge = bridge

    def layers(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's layers at the real tokens of all rows, on the bridge's device.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].

        Returns:
            L tensors [tokens, d_enc], of two encoders the first one's layers first.

        Raises:
            PalamError: a state is not finite; in 16 bits some encoders' states overflow.
        """
        mask = mask.to(self.encoder.device)
        ids = ids.to(mask.device)
        if isinstance(self.encoder, EncoderPair):
            layers = self.encoder.layers(ids, mask)
        else:
            layers = real_states(self.encoder, ids, mask)
        check_finite(
            {f"layer {number}": layer for number, layer in enumerate(layers, start=1)},
            "the encoder's states",
            layers[0].dtype,
        )
        return [layer.to(self.bridge.device) for layer in layers]

    def mapped(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See [`TextEncoding.mapped`]."""
        mapped: Tensor = self.bridge(self.layers(ids, mask))[0]
        return mapped
