"""Where base models are put and in which dtype, chosen where the user does not say."""

from typing import Any, TypedDict

import torch

from palam.errors import PalamError
from palam.utils.autotune import bf16_pays, fused_attention_pays

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtypes of base models by their short names."""


class Placement(TypedDict, total=False):
    """Where base models are put and how they are held; every key may be left out."""

    device: str | torch.device | None
    """Default: the CPU."""
    dtype: torch.dtype
    """Of the weights; default fp32."""
    device_map: Any
    """As in transformers, to spread the LLM over several devices; `device` is then not its."""
    attention: str | None
    """transformers' `attn_implementation`; default its own choice."""
    load_in: str | None
    """`8bit` or `4bit`, see [`quantization_options`]; default whole."""


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is: CUDA, then MPS, then the CPU.

    Args:
        name: as torch writes it, `cuda:1`; None or `auto` is the best.

    Raises:
        PalamError: no such device here.
    """
    if name is None or name == "auto":
        return _best_device()
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):  # as the kind of device has it
        raise PalamError(
            f"there is no device {name!r} here; give cpu, cuda, cuda:1, mps or auto"
        ) from None
    return device


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named dtype, or for `auto` the faster of bf16 and fp32: known on CUDA, measured on a CPU.

    Args:
        name: one of [`DTYPES`], or `auto`.
        device: where it will be used.

    Raises:
        PalamError: no dtype of that name.
    """
    if name == "auto":
        return torch.bfloat16 if _bf16_is_faster(device) else torch.float32
    if name not in DTYPES:
        raise PalamError(f"dtype is {name!r}; it must be one of: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _bf16_is_faster(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bf16_pays()


def pick_attention(device: torch.device, dtype: torch.dtype) -> str | None:
    """The attention of transformers to load the base models with; None is its own choice.

    On CPUs the fused attention can be much slower on short texts: there the plain one is taken,
    unless the fused one is clearly faster.
    """
    if device.type == "cpu" and not fused_attention_pays(dtype):
        return "eager"
    return None


def resolve_placement(
    device: str | None = None, dtype: str = "auto", load_in: str | None = None
) -> Placement:
    """The placement that names mean here: device, dtype and attention are chosen where not given.

    Args:
        device: see [`pick_device`].
        dtype: see [`pick_dtype`].
        load_in: `8bit`, `4bit` or None; passed on unchecked.

    Raises:
        PalamError: no such device or dtype.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(dtype, torch_device)
    return Placement(
        device=torch_device,
        dtype=torch_dtype,
        attention=pick_attention(torch_device, torch_dtype),
        load_in=load_in,
    )


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of one of [`DTYPES`], as the commands take it."""
    for name, value in DTYPES.items():
        if value == dtype:
            return name
    raise ValueError(f"{dtype} has no short name")
