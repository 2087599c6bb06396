"""Mappers: from the fused state's width to the LLM's.

Each ends in a linear readout, which can be solved in closed form.
"""

import torch
from torch import Tensor, nn


class LinearMapper(nn.Module):
    """e = W z + b, the paper's mapper.

    Other mappers extend it: their `features` are what the readout W reads. A mapper's own options
    are the constructor's parameters after these two, each with a default.

    Args:
        input_size, output_size: widths of the fused state and of the LLM.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.readout = nn.Linear(input_size, output_size)
        nn.init.zeros_(self.readout.bias)

    def features(self, fused: Tensor) -> Tensor:
        """What the readout reads: the fused states [..., input_size] themselves."""
        return fused

    def forward(self, fused: Tensor) -> Tensor:
        """Map fused states [..., input_size] to the LLM's embedding space [..., output_size]."""
        mapped: Tensor = self.readout(self.features(fused))
        return mapped

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiply the output by `factor`."""
        self.readout.weight.mul_(factor)
        self.readout.bias.mul_(factor)


class MLPMapper(LinearMapper):
    """e = W₂ gelu(W₁ z + b₁) + b₂.

    Args:
        input_size, output_size: widths of the fused state and of the LLM.
        hidden_size: width of the hidden layer; None is the output's width.
    """

    def __init__(self, input_size: int, output_size: int, hidden_size: int | None = None) -> None:
        hidden_size = hidden_size or output_size
        super().__init__(hidden_size, output_size)
        self.hidden = nn.Linear(input_size, hidden_size)

    def features(self, fused: Tensor) -> Tensor:
        """What the readout reads: the hidden layer's output [..., hidden_size]."""
        return nn.functional.gelu(self.hidden(fused))
