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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from palam import starter
from palam.device import quantisation
from palam.errors import PalamError

UNLIMITED = 10**9  # tokens: "no limit", for encoders with relative positions
# What libraries raise for a folder or a name that is not a usable model.
USUAL = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
LOADING_ERRORS = (*USUAL, SafetensorError, StrictDataclassError)


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
        load_in: `8bit` or `4bit`, see [`palam.device.quantisation`]; default whole.

    Raises:
        PalamError: it cannot be found or read, or a weight is missing from the checkpoint.
    """
    path, config = load_config(name_or_path, "encoder", revision)
    with readable_errors(name_or_path, "encoder"), torch.device("meta"):
        cls, config, key_mapping = encoder_part(config)
    # A pooler that cannot be left out may be missing: the hidden states do not depend on it.
    options: dict[str, Any] = {"unused": "pooler.", "config": config, "revision": revision, "dtype": dtype}
    options |= {"attn_implementation": attention, "key_mapping": key_mapping or None}
    options |= (fewer := quantisation(load_in, dtype, device, None))
    if "add_pooling_layer" in inspect.signature(cls.__init__).parameters:
        options["add_pooling_layer"] = False
    model: Any = load_weights(cls.from_pretrained, path, name_or_path, "encoder", **options)
    return freeze(model.to(device=device) if device is not None and not fewer else model)


def encoder_part(config: PreTrainedConfig) -> tuple[type[PreTrainedModel], PreTrainedConfig, dict[str, str]]:
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
        if id(parameter) in own and not name.startswith(path + "."):  # tied: a checkpoint has any one name
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
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        output = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **options)
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
    with readable_errors(model.name_or_path or type(model).__name__, "encoder", "cannot be used as the encoder"):
        states = encode(model, ids, torch.ones_like(ids))
        shapes = {tuple(state.shape) for state in states}
        if len(shapes) > 1 or states[0].shape[:-1] != ids.shape:
            raise PalamError(f"its layers' states differ in shape: {sorted(shapes)}")
        if torch.equal(states[-1][0, 0], states[-1][1, 0]):
            raise PalamError("it reads left to right only; Palam needs an encoder (mT5, XLM-R, NLLB, E5, ...)")
    return states[-1].shape[-1], len(states)


def encoder_max_length(model: PreTrainedModel, tokenizer: Any) -> int:
    """How many tokens a text may have, special tokens included: the smaller of model's and tokenizer's limit.

    10**9 where neither sets one (T5's positions are relative).
    """
    places = r"(^|\.)(position_embeddings|embed_positions|wpe)$"
    tables = [m for name, m in model.named_modules() if isinstance(m, nn.Embedding) and re.search(places, name)]
    limit = getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    if tables:
        # RoBERTa counts positions from padding_idx + 1; BART's table has `offset` rows in front.
        skipped = 0 if tables[0].padding_idx is None else tables[0].padding_idx + 1
        limit = tables[0].num_embeddings - skipped - int(getattr(tables[0], "offset", 0))
    return int(min(tokenizer.model_max_length, limit, UNLIMITED))


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
    from_pretrained: Callable[..., Any], path: str, name: str, role: str, unused: str = "", **options: Any
) -> PreTrainedModel:
    """Call `from_pretrained`; PalamError if a weight not named `unused...` is not in the safetensors."""
    options |= {"use_safetensors": True, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    with readable_errors(name, role):
        model, info = from_pretrained(path, output_loading_info=True, **options)
    missing = sorted(key for key in info["missing_keys"] if not (unused and key.startswith(unused)))
    reshaped = sorted(key for key, *_ in info["mismatched_keys"])
    for keys, fault in ((missing, "lacks"), (reshaped, "has another shape than its config says for")):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise PalamError(f"{role} {name!r}: the checkpoint {fault} {', '.join(keys[:3])}{more}")
    loaded: PreTrainedModel = model
    loaded.name_or_path = name  # what the user calls it; a starter model's folder is another on each machine
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
        raise PalamError(f"no tokenizer could be loaded from {name_or_path!r}; give a hub id or a folder") from None


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
            text = "it has no model.safetensors (pickled weights, pytorch_model.bin, are never read)"
        elif "Repo id must" in text or "couldn't connect" in text or "not a valid model identifier" in text:
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
