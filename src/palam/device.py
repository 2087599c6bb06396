"""Which device and which dtype, where the user does not say."""

import logging
import timeit
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from transformers import BitsAndBytesConfig

from palam.errors import PalamError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LOAD_IN = ("8bit", "4bit")


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is: CUDA, then MPS, then the CPU.

    Raises:
        PalamError: no such device here.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):  # as the kind of device has it
        raise PalamError(f"there is no device {name!r} here; give cpu, cuda, cuda:1, mps or auto") from None
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named dtype, or for `auto` the faster of bf16 and fp32: known on CUDA, measured on a CPU.

    Raises:
        PalamError: no dtype of that name.
    """
    if name == "auto":
        faster = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and _bf16_pays()
        return torch.bfloat16 if faster else torch.float32
    if name not in DTYPES:
        raise PalamError(f"dtype is {name!r}; it must be one of: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def pick_attention(device: torch.device, dtype: torch.dtype) -> str | None:
    """The attention of transformers to load the base models with; None is its own choice.

    On CPUs the fused attention can be much slower on short texts: the plain one is taken unless it loses clearly.
    """
    return "eager" if device.type == "cpu" and not _fused_pays(dtype) else None


def place(device: str | None = None, dtype: str = "auto") -> dict[str, Any]:
    """Device, dtype and attention of the base models, as the functions that load them take them."""
    found = pick_device(device)
    kind = pick_dtype(dtype, found)
    return {"device": found, "dtype": kind, "attention": pick_attention(found, kind)}


def quantisation(load_in: str | None, dtype: torch.dtype, device: Any, device_map: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a base model's matrices in fewer bits; its embeddings stay whole.

    Args:
        load_in: one of `LOAD_IN`; None is none.
        dtype: of the arithmetic.
        device, device_map: where the model goes, which has to be known as it is loaded.

    Raises:
        PalamError: another word, or bitsandbytes is not installed.
    """
    if load_in is None:
        return {}
    if load_in not in LOAD_IN:
        raise PalamError(f"load_in is {load_in!r}; it must be one of: {', '.join(LOAD_IN)}")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise PalamError(f'{load_in} needs bitsandbytes: pip install "palam[quant]"') from None
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of a cast at every product
    kind: Any = BitsAndBytesConfig
    settings = kind(
        load_in_8bit=load_in == "8bit", load_in_4bit=load_in == "4bit",
        bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4",
    )  # fmt: skip
    return {"quantization_config": settings, "device_map": device_map or {"": str(device or "cpu")}}


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a dtype, as the commands take it."""
    return next(name for name, value in DTYPES.items() if value == dtype)


@cache
def _bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 matrices clearly faster than fp32 ones; some emulate it."""
    full, half = (min(matmul_seconds("cpu", dtype, 256, 768, 8)) for dtype in (torch.float32, torch.bfloat16))
    return half < 0.67 * full


@cache
def _fused_pays(dtype: torch.dtype) -> bool:
    """Whether this CPU's fused attention is clearly faster than the plain one, with its gradient, on short texts."""
    query, key, value = (torch.ones(8, 8, 64, 64, dtype=dtype, requires_grad=True) for _ in range(3))

    def fastest(attend: Callable[[], torch.Tensor]) -> float:
        return min(timeit.repeat(lambda: torch.autograd.grad(attend().sum(), query), number=1, repeat=6))

    plain = fastest(lambda: (query @ key.mT).softmax(-1) @ value)
    return fastest(lambda: F.scaled_dot_product_attention(query, key, value)) < 0.67 * plain


def matmul_seconds(
    device: torch.device | str, dtype: torch.dtype, rows: int = 2048, width: int = 2048, times: int = 10
) -> list[float]:
    """How long [rows, width] x [width, width] takes, each time but the first."""
    left, right = (torch.ones(size, width, dtype=dtype, device=device) for size in (rows, width))
    return timeit.repeat(lambda: (left @ right)[0, 0].item(), number=1, repeat=times + 1)[1:]
