"""Two frozen encoders that read the same text."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from palam.models.backbones.encoder import encode
from palam.models.joined_tokens import split_tokens


class EncoderPair(nn.Module):
    """Two encoders, whose states stand side by side at the first one's tokens.

    It is where an encoder is, and reads rows of [`join_tokens`].

    Args:
        first, second: of [`load_encoder`], on one device and of one dtype.
    """

    def __init__(self, first: PreTrainedModel, second: PreTrainedModel) -> None:
        super().__init__()
        self.first: Any = first
        self.second: Any = second

    @property
    def device(self) -> torch.device:
        """The device that both encoders are on."""
        device: torch.device = self.first.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of both encoders' weights."""
        dtype: torch.dtype = self.first.dtype
        return dtype

    @property
    def name_or_path(self) -> str:
        """The first encoder's name or folder."""
        return str(self.first.name_or_path)

    def layers(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The states of both at the first one's real tokens.

        Args:
            ids, mask: rows of [`join_tokens`] and what of them is real [batch, tokens], on this
                device.

        Returns:
            L tensors [tokens, d_enc] of the first encoder's layers, then those of the second's,
            each the mean over the tokens that begin in the first one's.
        """
        paddings = (_padding(self.first), _padding(self.second))
        split = split_tokens(ids, mask, paddings)
        layers = real_states(self.first, split.first.ids, split.first.mask)
        for state in real_states(self.second, split.second.ids, split.second.mask):
            layers.append(split.pooling.pool(state))
        return layers


def _padding(encoder: Any) -> int:
    """The id of padding, whose states nobody reads."""
    padding = getattr(encoder.config, "pad_token_id", None)
    return padding if isinstance(padding, int) and padding >= 0 else 0


def real_states(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """An encoder's layers at the real tokens of all rows.

    Args:
        encoder: of [`load_encoder`].
        ids, mask: its tokens and attention mask [batch, tokens].

    Returns:
        L tensors [tokens, d_enc], row after row.
    """
    states = encode(encoder, ids, mask)
    real = mask.nonzero(as_tuple=True)
    return [state[real] for state in states]


def encoders_of(encoder: PreTrainedModel | EncoderPair) -> list[PreTrainedModel]:
    """The one encoder, or both of a pair."""
    if isinstance(encoder, EncoderPair):
        return [encoder.first, encoder.second]
    return [encoder]
