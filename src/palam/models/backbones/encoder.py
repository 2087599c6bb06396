"""The frozen multilingual encoder: its encoder half alone, its shape, its states.

There is no allow-list of names. A model that transformers knows as a text encoder is loaded as one.
Of any other encoder-decoder (NLLB, M2M100, mBART, ...) the whole model is sketched without memory
to learn its encoder's class, the name its weights have in the checkpoint, and the names of tied
copies of its embeddings; then that class alone is filled.
"""

import inspect
import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from palam.errors import PalamError
from palam.models.backbones.loading import (
    freeze,
    load_config,
    load_weights,
    probe_ids,
    readable_errors,
)
from palam.models.backbones.quantization import quantization_options

UNLIMITED = 10**9
"""Tokens: no limit, of encoders with relative positions."""
POSITION_TABLES = re.compile(
    r"(^|\.)(position_embeddings|embed_positions|wpe|positions_embed|position_embed)$"
)
"""The names of modules that hold a model's absolute positions."""


class EncoderPart(NamedTuple):
    """How to load the encoder out of a checkpoint that may hold more."""

    model_class: type[PreTrainedModel]
    config: PreTrainedConfig
    """Of the encoder."""
    key_mapping: dict[str, str]
    """Patterns of the checkpoint's weights' names, each with what it becomes."""


class EncoderShape(NamedTuple):
    """The shape of an encoder's states."""

    hidden_size: int
    num_layers: int


def load_encoder(
    name_or_path: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    attention: str | None = None,
    load_in: str | None = None,
) -> PreTrainedModel:
    """Load an encoder, without decoder, head or pooler; frozen, in evaluation.

    Args:
        name_or_path: a folder, a hub id, or `starter:encoder`. Only safetensors are read; no remote
            code is run.
        revision: of the hub's repository; None is its main branch.
        dtype: of the weights.
        device: where to put it; None is the CPU.
        attention: transformers' `attn_implementation`; None is its own choice.
        load_in: `8bit` or `4bit`, see [`quantization_options`]; None is whole.

    Raises:
        PalamError: it cannot be found or read, or a weight is missing from the checkpoint.
    """
    located = load_config(name_or_path, "encoder", revision)
    if located.config.model_type == "palam":
        raise PalamError(f"encoder {name_or_path!r} is a bridge, not an encoder")
    with readable_errors(name_or_path, "encoder"), torch.device("meta"):
        part = encoder_part(located.config)
    options = quantization_options(load_in, dtype, device, None)
    placed = bool(options)
    if "add_pooling_layer" in inspect.signature(part.model_class.__init__).parameters:
        options["add_pooling_layer"] = False
    model: Any = load_weights(
        part.model_class.from_pretrained,
        located.path,
        name_or_path,
        "encoder",
        # A pooler that cannot be left out may be missing: the states do not depend on it.
        unused="pooler.",
        config=part.config,
        key_mapping=part.key_mapping or None,
        revision=revision,
        dtype=dtype,
        attn_implementation=attention,
        **options,
    )
    if device is not None and not placed:
        model = model.to(device=device)
    frozen: PreTrainedModel = freeze(model)
    return frozen


def encoder_part(config: PreTrainedConfig) -> EncoderPart:
    """What of a model is its encoder. Call it under `torch.device("meta")`: it sketches the model.

    Args:
        config: of the whole model.
    """
    text_encoder: Any = AutoModelForTextEncoding
    any_model: Any = AutoModel
    try:
        model_class = type(text_encoder.from_config(config, trust_remote_code=False))
        return EncoderPart(model_class, config, {})
    except ValueError:  # a kind it has no text encoder for
        whole = any_model.from_config(config, trust_remote_code=False)
    if not config.is_encoder_decoder:
        return EncoderPart(type(whole), config, {})
    whole.tie_weights()  # early releases of transformers 5 do not tie a model made from its config
    encoder = whole.get_encoder()
    return EncoderPart(type(encoder), encoder.config, _encoder_keys(whole, encoder))


def encoder_without_weights(config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """An encoder's modules with their shapes and limits. Call it as [`encoder_part`] is, or where
    tensors are fake.

    Args:
        config: of the whole model.
        **options: for transformers, such as `dtype` and `attn_implementation`.
    """
    part = encoder_part(config)
    encoder_class: Any = part.model_class
    if "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters:
        options["add_pooling_layer"] = False
    encoder: PreTrainedModel = freeze(encoder_class._from_config(part.config, **options))
    return encoder


def _encoder_keys(whole: PreTrainedModel, encoder: nn.Module) -> dict[str, str]:
    """How a whole model's weights are renamed to the encoder's own; see [`EncoderPart`]."""
    path = next(name for name, module in whole.named_modules() if module is encoder)
    base = rf"^(?:{re.escape(whole.base_model_prefix)}\.)?"
    mapping = {rf"{base}{re.escape(path)}\.": ""}
    encoder_names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    for name, parameter in whole.named_parameters(remove_duplicate=False):
        outside = not name.startswith(f"{path}.")
        if outside and id(parameter) in encoder_names:  # tied: a checkpoint has any one name
            mapping[rf"{base}{re.escape(name)}$"] = encoder_names[id(parameter)]
    return mapping


def encode(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
    """The states of all layers, without the embedding layer and without gradient.

    Args:
        model: of [`load_encoder`].
        input_ids: [batch, tokens].
        attention_mask: [batch, tokens], 1 for real tokens, 0 for padding (on the right).

    Returns:
        One tensor [batch, tokens, d_enc] per layer, `hidden_states[1:]` as the model returns them.

    Raises:
        PalamError: the model returns none.
    """
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    options = {"use_cache": False} if takes_cache else {}
    with torch.no_grad():
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=True,
            **options,
        )
    states = getattr(output, "hidden_states", None)
    if not states or len(states) < 2:
        raise PalamError(f"{type(model).__name__} returns no hidden states of its layers")
    return tuple(states[1:])


def mean_over_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of each text's states, without padding.

    Args:
        states: [batch, tokens, d].
        attention_mask: [batch, tokens], 0 for padding.

    Returns:
        [batch, d], in the states' dtype.
    """
    real = attention_mask[..., None].to(states.dtype)
    return (states * real).sum(1) / real.sum(1)


def encoder_shape(model: PreTrainedModel) -> EncoderShape:
    """Width and number of an encoder's layers, as a forward pass on eight tokens gives them.

    Raises:
        PalamError: it is no encoder that Palam can use: it fails on plain ids, gives no states or
            states of different shapes, or reads left to right (a decoder-only model).
    """
    ids = probe_ids(model)
    name = model.name_or_path or type(model).__name__
    with readable_errors(name, "encoder", "cannot be used as the encoder"):
        states = encode(model, ids, torch.ones_like(ids))
        shapes = {tuple(state.shape) for state in states}
        if len(shapes) > 1 or states[0].shape[:-1] != ids.shape:
            raise PalamError(f"its layers' states differ in shape: {sorted(shapes)}")
        if torch.equal(states[-1][0, 0], states[-1][1, 0]):
            raise PalamError(
                "it reads left to right only; Palam needs an encoder (mT5, XLM-R, NLLB, E5, ...)"
            )
    return EncoderShape(hidden_size=states[-1].shape[-1], num_layers=len(states))


def encoder_max_length(model: PreTrainedModel, tokenizer: Any) -> int:
    """How many tokens a text may have, special tokens included.

    Returns:
        The smaller of model's and tokenizer's limit; `UNLIMITED` where neither sets one (T5's
        positions are relative).
    """
    positions = table_positions(model)
    if positions is None:
        positions = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    return int(min(tokenizer.model_max_length, positions, UNLIMITED))


def table_positions(model: nn.Module) -> int | None:
    """How many positions a model's table of absolute positions has; None if it has no table."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and POSITION_TABLES.search(name):
            # RoBERTa counts positions from padding_idx + 1, BART from the table's `offset`.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped - int(getattr(module, "offset", 0))
    return None
