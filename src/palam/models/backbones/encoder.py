"""The frozen multilingual encoder: its encoder half alone, its shape, its states.

There is no allow-list of names. A model that transformers knows as a text encoder is loaded as one. Of any
other encoder-decoder (NLLB, M2M100, mBART, ...) the whole model is sketched without memory to learn its
encoder's class, the name its weights have in the checkpoint, and the names of tied copies of its embeddings;
then that class alone is filled. transformers only warns when weights are missing and leaves them random:
here it is an error. `load_config`, `load_weights` and `load_tokenizer` serve the LLM too.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedModel,
)
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

UNLIMITED = 10**9  # tokens: "no limit", for encoders with relative positions


def load_encoder(
    name_or_path: str, *, revision: str | None = None, dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None, attention: str | None = None, load_in: str | None = None,
) -> PreTrainedModel:  # fmt: skip
    """Load an encoder, without decoder, head or pooler; frozen, in eval mode.

    Args:
        name_or_path: a folder, a hub id, or `starter:encoder`. Only safetensors are read; no remote code.
        revision: of the hub's repository; default its main branch.
        dtype: of the weights.
        device: where to put it; default the CPU.
        attention: transformers' `attn_implementation`; default its own choice.
        load_in: `8bit` or `4bit`, see [`palam.models.backbones.quantization.quantization_options`]; default whole.

    Raises:
        PalamError: it cannot be found or read, or a weight is missing from the checkpoint.
    """
    path, config = load_config(name_or_path, "encoder", revision)
    with readable_errors(name_or_path, "encoder"), torch.device("meta"):
        cls, config, key_mapping = encoder_part(config)
    # A pooler that cannot be left out may be missing: the hidden states do not depend on it.
    options: dict[str, Any] = {
        "unused": "pooler.",
        "config": config,
        "revision": revision,
        "dtype": dtype,
    }
    options |= {"attn_implementation": attention, "key_mapping": key_mapping or None}
    options |= (fewer := quantization_options(load_in, dtype, device, None))
    if "add_pooling_layer" in inspect.signature(cls.__init__).parameters:
        options["add_pooling_layer"] = False
    model: Any = load_weights(cls.from_pretrained, path, name_or_path, "encoder", **options)
    return freeze(model.to(device=device) if device is not None and not fewer else model)


def encoder_part(
    config: PreTrainedConfig,
) -> tuple[type[PreTrainedModel], PreTrainedConfig, dict[str, str]]:
    """The class of the encoder, its config, and the renaming of a full checkpoint's keys. Under `meta`."""
    text_encoder: Any = AutoModelForTextEncoding
    any_model: Any = AutoModel
    try:
        return type(text_encoder.from_config(config, trust_remote_code=False)), config, {}
    except ValueError:  # a kind it has no text encoder for
        whole = any_model.from_config(config, trust_remote_code=False)
    if not config.is_encoder_decoder:
        return type(whole), config, {}
    whole.tie_weights()  # early releases of transformers 5 do not tie a model made from its config
    encoder = whole.get_encoder()
    path = next(name for name, module in whole.named_modules() if module is encoder)
    base = rf"^(?:{re.escape(whole.base_model_prefix)}\.)?"
    mapping = {rf"{base}{re.escape(path)}\.": ""}
    own = {id(parameter): name for name, parameter in encoder.named_parameters()}
    for name, parameter in whole.named_parameters(remove_duplicate=False):
        if id(parameter) in own and not name.startswith(
            path + "."
        ):  # tied: a checkpoint has any one name
            mapping[rf"{base}{re.escape(name)}$"] = own[id(parameter)]
    return type(encoder), encoder.config, mapping


def encode(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
    """The states of all layers, without the embedding layer and without gradient.

    Args:
        model: from `load_encoder`.
        input_ids: [batch, tokens].
        attention_mask: [batch, tokens], 1 for real tokens, 0 for padding (on the right).

    Returns:
        One tensor [batch, tokens, width] per layer, `hidden_states[1:]` as the model returns them.
        PalamError is raised if it returns none.
    """
    options = (
        {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    )
    with torch.no_grad():
        output = model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **options
        )
    states = getattr(output, "hidden_states", None)
    if not states or len(states) < 2:
        raise PalamError(f"{type(model).__name__} returns no hidden states of its layers")
    return tuple(states[1:])


def encoder_shape(model: PreTrainedModel) -> tuple[int, int]:
    """Width and number of layers of the encoder's states, as a forward pass on eight tokens gives them.

    Raises:
        PalamError: it is no encoder that Palam can use: it fails on plain ids, gives no states or states of
            different shapes, or reads left to right (a decoder-only model).
    """
    ids = probe_ids(model)
    with readable_errors(
        model.name_or_path or type(model).__name__, "encoder", "cannot be used as the encoder"
    ):
        states = encode(model, ids, torch.ones_like(ids))
        shapes = {tuple(state.shape) for state in states}
        if len(shapes) > 1 or states[0].shape[:-1] != ids.shape:
            raise PalamError(f"its layers' states differ in shape: {sorted(shapes)}")
        if torch.equal(states[-1][0, 0], states[-1][1, 0]):
            raise PalamError(
                "it reads left to right only; Palam needs an encoder (mT5, XLM-R, NLLB, E5, ...)"
            )
    return states[-1].shape[-1], len(states)


def encoder_max_length(model: PreTrainedModel, tokenizer: Any) -> int:
    """How many tokens a text may have, special tokens included: the smaller of model's and tokenizer's limit.

    10**9 where neither sets one (T5's positions are relative).
    """
    places = r"(^|\.)(position_embeddings|embed_positions|wpe)$"
    tables = [
        m
        for name, m in model.named_modules()
        if isinstance(m, nn.Embedding) and re.search(places, name)
    ]
    limit = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    if tables:
        # RoBERTa counts positions from padding_idx + 1; BART's table has `offset` rows in front.
        skipped = 0 if tables[0].padding_idx is None else tables[0].padding_idx + 1
        limit = tables[0].num_embeddings - skipped - int(getattr(tables[0], "offset", 0))
    return int(min(tokenizer.model_max_length, limit, UNLIMITED))
