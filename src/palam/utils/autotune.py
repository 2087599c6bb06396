"""What is faster on this CPU, measured in a moment: bf16 or fp32, fused or plain attention."""

import timeit
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

PAYS = 0.67
"""What is tried counts as faster if it takes less than this share of the usual way's time."""


@cache
def bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 matrices clearly faster than fp32 ones; some emulate it."""
    full = min(matmul_seconds("cpu", torch.float32, rows=256, width=768, times=8))
    half = min(matmul_seconds("cpu", torch.bfloat16, rows=256, width=768, times=8))
    return half < PAYS * full


@cache
def fused_attention_pays(dtype: torch.dtype) -> bool:
    """Whether this CPU's fused attention is clearly faster than the plain one on short texts.

    Measured with the gradient.
    """
    shape = (8, 8, 64, 64)  # [batch, heads, tokens, width]
    query = torch.ones(shape, dtype=dtype, requires_grad=True)
    key = torch.ones(shape, dtype=dtype, requires_grad=True)
    value = torch.ones(shape, dtype=dtype, requires_grad=True)

    def plain_attention() -> Tensor:
        return (query @ key.mT).softmax(-1) @ value

    def fused_attention() -> Tensor:
        return scaled_dot_product_attention(query, key, value)

    def fastest(attention: Callable[[], Tensor]) -> float:
        def step() -> tuple[Tensor, ...]:
            return torch.autograd.grad(attention().sum(), query)

        return min(timeit.repeat(step, number=1, repeat=6))

    plain = fastest(plain_attention)
    fused = fastest(fused_attention)
    return fused < PAYS * plain


def matmul_seconds(
    device: torch.device | str,
    dtype: torch.dtype,
    rows: int = 2048,
    width: int = 2048,
    times: int = 10,
) -> list[float]:
    """How long a product of matrices [rows, width] x [width, width] takes.

    Returns:
        Seconds, `times` of them; a first product is not counted.
    """
    left = torch.ones(rows, width, dtype=dtype, device=device)
    right = torch.ones(width, width, dtype=dtype, device=device)

    def multiply_and_wait() -> float:
        return (left @ right)[0, 0].item()  # `item` waits for the device

    return timeit.repeat(multiply_and_wait, number=1, repeat=times + 1)[1:]
