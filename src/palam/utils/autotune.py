"""What is faster on this CPU, measured in a moment: bf16 or fp32, fused or plain attention."""

import timeit
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F


@cache
def bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 matrices clearly faster than fp32 ones; some emulate it."""
    full, half = (
        min(matmul_seconds("cpu", dtype, 256, 768, 8)) for dtype in (torch.float32, torch.bfloat16)
    )
    return half < 0.67 * full


@cache
def fused_attention_pays(dtype: torch.dtype) -> bool:
    """Whether this CPU's fused attention is clearly faster than the plain one, with its gradient, on short texts."""
    query, key, value = (
        torch.ones(8, 8, 64, 64, dtype=dtype, requires_grad=True) for _ in range(3)
    )

    def fastest(attend: Callable[[], torch.Tensor]) -> float:
        return min(
            timeit.repeat(lambda: torch.autograd.grad(attend().sum(), query), number=1, repeat=6)
        )

    plain = fastest(lambda: (query @ key.mT).softmax(-1) @ value)
    return fastest(lambda: F.scaled_dot_product_attention(query, key, value)) < 0.67 * plain


def matmul_seconds(
    device: torch.device | str,
    dtype: torch.dtype,
    rows: int = 2048,
    width: int = 2048,
    times: int = 10,
) -> list[float]:
    """How long [rows, width] x [width, width] takes, each time but the first."""
    left, right = (torch.ones(size, width, dtype=dtype, device=device) for size in (rows, width))
    return timeit.repeat(lambda: (left @ right)[0, 0].item(), number=1, repeat=times + 1)[1:]
