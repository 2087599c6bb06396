"""The frozen English LLM: loading it, checking that it reads vectors in place of tokens, keeping it frozen.

Ids are always embedded by calling the embedding module: Gemma scales inside it. Gradient checkpointing needs
care, because transformers' layers recompute only while `training` is set, and a frozen LLM is in eval mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from palam.errors import PalamError
from palam.models.backbones.loading import (
    freeze,
    load_config,
    load_weights,
    probe_ids,
    readable_errors,
)
from palam.models.backbones.quantization import quantization_options


def load_llm(
    name_or_path: str, *, revision: str | None = None, dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None, device_map: Any = None, attention: str | None = None,
    load_in: str | None = None,
) -> PreTrainedModel:  # fmt: skip
    """Load a decoder-only language model; frozen, in eval mode.

    Args:
        name_or_path: a folder, a hub id, or `starter:llm`. This and the others are as in [`load_encoder`].
        device_map: as in transformers, to spread it over several devices; `device` is then not used.

    Raises:
        PalamError: it cannot be found or read, a weight is missing, or it is not decoder-only.
    """
    path, config = load_config(name_or_path, "LLM", revision)
    if config.is_encoder_decoder:
        raise PalamError(
            f"LLM {name_or_path!r} is an encoder-decoder; Palam needs a decoder-only model"
        )
    options = {
        "revision": revision,
        "dtype": dtype,
        "device_map": device_map,
        "attn_implementation": attention,
    }
    options |= (fewer := quantization_options(load_in, dtype, device, device_map))
    model: Any = load_weights(
        AutoModelForCausalLM.from_pretrained, path, name_or_path, "LLM", config=config, **options
    )
    return freeze(
        model.to(device=device)
        if device is not None and device_map is None and not fewer
        else model
    )


@torch.no_grad()
def check_llm(model: PreTrainedModel) -> None:
    """Check on eight tokens that vectors can stand in for tokens and that the model reads left to right.

    Raises:
        PalamError: it takes no `inputs_embeds`; or gives other logits for the embeddings of ids than for the
            ids (it needs the ids too, as with embeddings per layer); or a token sees those after it.
    """
    name = model.name_or_path or type(model).__name__
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise PalamError(f"LLM {name!r} takes no inputs_embeds: it cannot read the encoder's text")
    ids = probe_ids(model)
    with readable_errors(name, "LLM", "cannot be used"):
        mask = torch.ones_like(ids)
        by_ids = model(input_ids=ids, attention_mask=mask).logits
        try:
            vectors = model.get_input_embeddings()(ids)
            logits = model(inputs_embeds=vectors, attention_mask=mask).logits
            off = (
                float((logits - by_ids).abs().max())
                if logits.shape == by_ids.shape
                else float("inf")
            )
        except (ValueError, TypeError, RuntimeError, AttributeError):
            off = float("inf")
        if not off <= 1e-3 * max(1.0, float(by_ids.abs().max())):
            raise PalamError("it needs token ids beside inputs_embeds, and mapped text has none")
        seen = float((logits[0, 0] - logits[1, 0]).abs().max())
        if seen > 1e-3 * max(1.0, float(logits.abs().max())):
            raise PalamError(
                "its tokens see those after them; Palam needs a decoder-only language model"
            )


@torch.no_grad()
def embedding_rms(model: PreTrainedModel) -> float:
    """Root mean square of what the embedding module returns, over at most 8192 ids spread over its table."""
    size = model.config.get_text_config().vocab_size
    ids = torch.linspace(0, size - 1, min(size, 8192), dtype=torch.float64).round().long()
    module: Any = model.get_input_embeddings()
    vectors = module(ids.to(module.weight.device)).float()
    return float(vectors.square().mean().sqrt())


def enable_checkpointing(llm: PreTrainedModel, kwargs: dict[str, Any] | None = None) -> None:
    """Recompute the LLM's layers in the backward pass instead of keeping their states; it stays frozen.

    Args:
        llm: from `load_llm`.
        kwargs: for `torch.utils.checkpoint.checkpoint`; default `{"use_reentrant": False}`.

    Raises:
        PalamError: the model does not support it.
    """
    # The older name is deprecated where the newer one exists.
    enable = (
        getattr(llm, "activation_checkpointing_enable", None) or llm.gradient_checkpointing_enable
    )
    with readable_errors(type(llm).__name__, "LLM", "cannot recompute its layers"):
        enable({"use_reentrant": False} | (kwargs or {}))
        if not _checkpointed(llm):
            raise PalamError("it does not support gradient checkpointing; train without it")
    for layer in _checkpointed(llm):  # a layer's own dropout would wake up with its `training`
        for name, value in vars(layer).items():
            if "dropout" in name and isinstance(value, float):
                setattr(layer, name, 0.0)
    keep_frozen(llm)


def compile_layers(llm: PreTrainedModel) -> list[tuple[nn.Module, Callable[..., Any]]]:
    """The LLM's layers, each with its forward pass compiled; the model itself stays as it is.

    The layers are alike, so one of them is compiled for all, for batches of any shape, at the first training step.

    Raises:
        PalamError: torch.compile does not work here (on a CPU it needs a C++ compiler), or no layers are found.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=llm.device))
    except Exception as error:  # whatever a compiler that is missing or broken makes of it
        reason = str(error).strip().partition("\n")[0]
        raise PalamError(f"torch.compile does not work here ({reason}); train without it") from None
    layers = [module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise PalamError(
            f"{type(llm).__name__} has no layers that could be compiled; train without it"
        )
    return [(layer, torch.compile(layer.forward, dynamic=True)) for layer in layers]


@contextmanager
def with_compiled(layers: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Within the block these layers run compiled (see [`compile_layers`])."""
    for layer, forward in layers:
        vars(layer)["forward"] = forward
    try:
        yield
    finally:
        for layer, _ in layers:
            del vars(layer)["forward"]


def keep_frozen(llm: PreTrainedModel, training: bool = True) -> None:
    """Put everything in eval mode; with `training`, let checkpointed layers (alone) still recompute.

    Pass `training=False` before generating: a layer that recomputes drops the cache of past tokens.
    """
    llm.train(False)
    for layer in _checkpointed(llm):
        layer.training = training


def _checkpointed(llm: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    return [
        m
        for m in llm.modules()
        if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing
    ]
