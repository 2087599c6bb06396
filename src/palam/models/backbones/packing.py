"""The LLM's matrices in the form that oneDNN computes with, for reading on a CPU.

A matrix as it is loaded is brought into that form anew for each product, which for the few rows of
a step of generating takes longer than the product itself. Packed once, it is not; the numbers are
the same up to rounding. Packed matrices take the place of the others, so they take no more memory
(but for a head that shares the embeddings' matrix), and there is no gradient through them.
"""

import timeit
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from palam.errors import PalamError

PACKED_DTYPES = (torch.float32, torch.bfloat16)
SIZE = 1024
"""Rows and columns of the matrix that is tried."""
ROWS = 8
ENOUGH = 1.15
"""How many times as fast as plain ones packed products must be."""


class PackedLinear(nn.Module):
    """A linear layer with a packed matrix, in place of the layer that it is made of.

    Args:
        linear: on the CPU, in fp32 or bf16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight.detach()
        # Nothing is in it; others ask for its dtype.
        self.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
        self.bias = linear.bias
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's output [..., out_features] for inputs [..., in_features].

        Raises:
            PalamError: a gradient is wanted.
        """
        if inputs.requires_grad and torch.is_grad_enabled():
            raise PalamError("the LLM is packed for reading; load it again to train")
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, self.bias, "none", [], ""
        )
        return output


def pack_llm(llm: PreTrainedModel) -> int:
    """Pack all matrices of an LLM, where that makes it faster here.

    Args:
        llm: frozen; nothing happens to one that is quantized, not on a CPU, or in another dtype
            than fp32 or bf16.

    Returns:
        How many matrices were packed.
    """
    if getattr(llm, "is_quantized", False) or not packing_pays(llm.dtype):
        return 0
    packed = 0
    for module in list(llm.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and _can_be_packed(child):
                setattr(module, name, PackedLinear(child))
                packed += 1
    return packed


def _can_be_packed(linear: nn.Linear) -> bool:
    if type(linear) is not nn.Linear:  # what derives from it computes otherwise
        return False
    return linear.weight.device.type == "cpu" and linear.weight.dtype in PACKED_DTYPES


@cache
@torch.no_grad()
def packing_pays(dtype: torch.dtype) -> bool:
    """Whether products with packed matrices are faster on this CPU, which is measured.

    Args:
        dtype: of the matrices; False for others than fp32 and bf16.
    """
    if dtype not in PACKED_DTYPES:
        return False
    linear = nn.Linear(SIZE, SIZE, bias=False, dtype=dtype)
    inputs = torch.ones(ROWS, SIZE, dtype=dtype)
    try:
        packed = PackedLinear(linear)
        packed(inputs)
    except (RuntimeError, AttributeError):  # this build of torch, or this CPU, has no such product
        return False
    return _fastest(lambda: linear(inputs)) > ENOUGH * _fastest(lambda: packed(inputs))


def _fastest(multiply: Callable[[], Tensor]) -> float:
    """Seconds of ten products, at best."""
    return min(timeit.repeat(multiply, number=10, repeat=7))
