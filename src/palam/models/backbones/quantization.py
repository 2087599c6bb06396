"""Base models in 8 or 4 bits, through bitsandbytes."""

import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from palam.errors import PalamError

LOAD_IN = ("8bit", "4bit")


def quantization_options(
    load_in: str | None, dtype: torch.dtype, device: Any, device_map: Any
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a base model's matrices in fewer bits.

    Its embeddings stay whole.

    Args:
        load_in: one of `LOAD_IN`; None is none, and gives no arguments.
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
    config_class: Any = BitsAndBytesConfig
    config = config_class(
        load_in_8bit=load_in == "8bit",
        load_in_4bit=load_in == "4bit",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4",
    )
    whole_device = {"": str(device or "cpu")}
    return {"quantization_config": config, "device_map": device_map or whole_device}
