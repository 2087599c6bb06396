"""Transformer Softmax (arXiv 2508.09091): each token weighs its own layers, by a small transformer.

The L states of a token are a short sequence with a CLS in front; one post-norm transformer encoder layer with one
head reads it, and CLS gives the weights. Only CLS is read, and its query is the same for every token, so the
layer never has to be computed for the other positions: with one head, score_l = x_l · (Wkᵀ q) and the value
projection can follow the mixing. The result is that of the full layer; the cost is about L times less.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palam.errors import PalamError
from palam.models.fusion.base import Fusion, mix


class TransformerSoftmax(Fusion):
    """z_t = Σ_l softmax(W · CLS_t)_l · h_{l,t}, with CLS_t read off one transformer layer over token t's states.

    Args:
        hidden_size, num_layers, normalize: see [`Fusion`].
        rank: width of the small transformer; None is the paper's, the encoder's own width. With a rank the
            states are projected down first; the states that are mixed stay at full width.
        feedforward: width of the transformer's feed-forward; None is the paper's 2048, or 4 · rank.
        dropout: the transformer's dropout in training.
    """

    learning_rate = 1e-4

    def __init__(
        self, hidden_size: int, num_layers: int, normalize: str, rank: int | None = None,
        feedforward: int | None = None, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(hidden_size, num_layers, normalize)
        if rank is not None and rank < 1:
            raise PalamError(
                f"rank is {rank}; it must be at least 1, or left out for the full width"
            )
        width = rank or hidden_size
        self.project = nn.Linear(hidden_size, width, bias=False) if rank else nn.Identity()
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.layer_embedding = nn.Parameter(torch.randn(num_layers, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            width,
            nhead=1,
            dim_feedforward=feedforward or (4 * rank if rank else 2048),
            dropout=dropout,
        )
        self.score = nn.Linear(width, num_layers)

    def layer_weights(self, states: Sequence[Tensor]) -> Tensor:
        """Each token's weights [..., L] from its prepared states."""
        layer, attention = self.layer, self.layer.self_attn
        width = self.cls.shape[0]
        w_query, w_key, w_value = attention.in_proj_weight.chunk(3)
        b_query, _, b_value = attention.in_proj_bias.chunk(
            3
        )  # the key's bias cancels in the softmax
        direction = (F.linear(self.cls, w_query, b_query) @ w_key) / math.sqrt(width)  # [width]
        lowered = [self.project(state) for state in states]
        scores = (
            torch.stack([low @ direction for low in lowered], -1) + self.layer_embedding @ direction
        )
        at_cls = (self.cls @ direction).expand(*scores.shape[:-1], 1)
        attended = F.dropout(
            torch.cat([at_cls, scores], -1).softmax(-1), attention.dropout, self.training
        )  # [..., 1 + L]
        mixed = mix(lowered, attended[..., 1:]) + attended @ torch.cat(
            [self.cls[None], self.layer_embedding]
        )
        value = F.linear(mixed, w_value) + attended.sum(-1, keepdim=True) * b_value
        read = layer.norm1(self.cls + layer.dropout1(attention.out_proj(value)))
        read = layer.norm2(
            read + layer.dropout2(layer.linear2(layer.dropout(F.relu(layer.linear1(read)))))
        )
        scores = self.score(read)
        weights: Tensor = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return weights

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See [`Fusion.forward`]."""
        prepared = [self.prepare(state) for state in states]
        weights = self.layer_weights(prepared)
        return mix(prepared, weights), weights
