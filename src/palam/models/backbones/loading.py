"""Loading a base model's configuration, weights and tokenizer; a library's error becomes one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from palam import starter
from palam.errors import PalamError

# What libraries raise for a folder or a name that is not a usable model.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
)
LOADING_ERRORS = (*LIBRARY_ERRORS, SafetensorError, StrictDataclassError)


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Switch off dropout and gradients; returns the model."""
    model.train(False)
    model.requires_grad_(False)
    return model


# --------------------------------------------------------------------------- shared with the LLM
def load_config(name_or_path: str, role: str, revision: str | None) -> tuple[str, PreTrainedConfig]:
    """Where the model is (a folder or a hub id) and its config. Raises PalamError, as `load_encoder` does."""
    path = starter.resolve(name_or_path)
    with readable_errors(name_or_path, role):
        return path, AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)


def load_weights(
    from_pretrained: Callable[..., Any],
    path: str,
    name: str,
    role: str,
    unused: str = "",
    **options: Any,
) -> PreTrainedModel:
    """Call `from_pretrained`; PalamError if a weight not named `unused...` is not in the safetensors."""
    options |= {
        "use_safetensors": True,
        "trust_remote_code": False,
        "ignore_mismatched_sizes": True,
    }
    with readable_errors(name, role):
        model, info = from_pretrained(path, output_loading_info=True, **options)
    missing = sorted(key for key in info["missing_keys"] if not (unused and key.startswith(unused)))
    reshaped = sorted(key for key, *_ in info["mismatched_keys"])
    for keys, fault in (
        (missing, "lacks"),
        (reshaped, "has another shape than its config says for"),
    ):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise PalamError(f"{role} {name!r}: the checkpoint {fault} {', '.join(keys[:3])}{more}")
    loaded: PreTrainedModel = model
    loaded.name_or_path = (
        name  # what the user calls it; a starter model's folder is another on each machine
    )
    for module in loaded.modules():
        # On CPUs with bf16 units bitsandbytes would rearrange 4-bit weights, which not every shape survives.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False
    return loaded


def load_tokenizer(name_or_path: str, revision: str | None = None) -> Any:
    """A base model's tokenizer. Raises PalamError if there is none at that id or folder."""
    path = starter.resolve(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception:  # a damaged file raises whatever its reader raises
        raise PalamError(
            f"no tokenizer could be loaded from {name_or_path!r}; give a hub id or a folder"
        ) from None


@contextmanager
def readable_errors(name: str, role: str, fault: str = "cannot be loaded") -> Iterator[None]:
    """Turn a library's errors into one PalamError line, and keep its warnings silent meanwhile."""
    logs = (transformers_logging, hub_logging)
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    try:
        yield
    except LOADING_ERRORS as error:
        text = re.sub(r":\s*\n\s*", ": ", str(error).strip()) or type(error).__name__
        if "file named model.safetensors" in text:
            text = (
                "it has no model.safetensors (pickled weights, pytorch_model.bin, are never read)"
            )
        elif (
            "Repo id must" in text
            or "couldn't connect" in text
            or "not a valid model identifier" in text
        ):
            text = "no such folder, and the model hub does not have it or cannot be reached"
        raise PalamError(f"{role} {name!r} {fault}: {text.splitlines()[0]}") from None
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)


def probe_ids(model: PreTrainedModel) -> Tensor:
    """Two rows of eight ids [2, 8] that differ in the last one alone, on the model's device."""
    ids = torch.arange(4, 12).repeat(2, 1)
    ids[1, -1] += 1
    size: int = model.config.get_text_config().vocab_size
    return (ids % size).to(model.device)
