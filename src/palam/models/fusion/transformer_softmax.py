"""Transformer Softmax (arXiv 2508.09091): each token weighs its own layers, by a small transformer.

The L states of a token are a short sequence with a CLS in front; one post-norm transformer encoder
layer with one head reads it, and CLS gives the weights. Only CLS is read, and its query is the same
for every token, so the layer never has to be computed for the other positions: with one head,
score_l = x_l · (Wkᵀ q) and the value projection can follow the mixing. The result is that of the
full layer; the cost is about L times less.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palam.errors import PalamError
from palam.models.fusion.base import Fusion, mix

PAPER_FEEDFORWARD = 2048


class TransformerSoftmax(Fusion):
    """z_t = Σ_l softmax(W · CLS_t)_l · h_{l,t}.

    CLS_t is read off one transformer layer over token t's states.

    Args:
        hidden_size, num_layers, normalize: see [`Fusion`].
        rank: width of the small transformer; None is the paper's, the encoder's own width. With a
            rank the states are projected down first; the states that are mixed stay at full width.
        feedforward: width of the transformer's feed-forward; None is the paper's 2048, or 4 · rank.
        dropout: the transformer's dropout in training.

    Raises:
        PalamError: a rank below 1.
    """

    learning_rate = 1e-4

    def __init__(
        self,
        hidden_size: int,
        num_layers: int,
        normalize: str,
        rank: int | None = None,
        feedforward: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(hidden_size, num_layers, normalize)
        if rank is not None and rank < 1:
            raise PalamError(
                f"rank is {rank}; it must be at least 1, or left out for the full width"
            )
        width = rank or hidden_size
        default_feedforward = 4 * rank if rank else PAPER_FEEDFORWARD
        self.project = nn.Linear(hidden_size, width, bias=False) if rank else nn.Identity()
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.layer_embedding = nn.Parameter(torch.randn(num_layers, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            width,
            nhead=1,
            dim_feedforward=feedforward or default_feedforward,
            dropout=dropout,
        )
        self.score = nn.Linear(width, num_layers)

    def layer_weights(self, states: Sequence[Tensor]) -> Tensor:
        """Each token's weights [..., L] from its prepared states, L tensors [..., d]."""
        layer = self.layer
        attended = layer.self_attn.out_proj(self._attend([self.project(state) for state in states]))
        cls = layer.norm1(self.cls + layer.dropout1(attended))
        hidden = layer.dropout(F.relu(layer.linear1(cls)))
        cls = layer.norm2(cls + layer.dropout2(layer.linear2(hidden)))
        scores = self.score(cls)
        precision = torch.promote_types(scores.dtype, torch.float32)
        weights: Tensor = scores.softmax(-1, dtype=precision)
        return weights

    def _attend(self, states: Sequence[Tensor]) -> Tensor:
        """What CLS takes from itself and the L layers by attention: the mixed values [..., width].

        Args:
            states: L tensors [..., width], without the layers' embeddings.
        """
        attention = self.layer.self_attn
        query_weight, key_weight, value_weight = attention.in_proj_weight.chunk(3)
        # The key's bias cancels in the softmax.
        query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
        query = F.linear(self.cls, query_weight, query_bias)
        direction = (query @ key_weight) / math.sqrt(len(self.cls))  # [width]
        scores = torch.stack([state @ direction for state in states], -1)
        scores = scores + self.layer_embedding @ direction  # [..., L]
        cls_score = (self.cls @ direction).expand(*scores.shape[:-1], 1)
        shares = torch.cat([cls_score, scores], -1).softmax(-1)  # [..., 1 + L]
        shares = F.dropout(shares, attention.dropout, self.training)
        constants = torch.cat([self.cls[None], self.layer_embedding])  # [1 + L, width]
        mixed = mix(states, shares[..., 1:]) + shares @ constants
        return F.linear(mixed, value_weight) + shares.sum(-1, keepdim=True) * value_bias

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See [`Fusion.forward`]."""
        prepared = [self.prepare(state) for state in states]
        weights = self.layer_weights(prepared)
        return mix(prepared, weights), weights
