"""The frozen English LLM: loading it, checking that it reads vectors, keeping it frozen.

Ids are always embedded by calling the embedding module: Gemma scales inside it. Gradient
checkpointing needs care, because transformers' layers recompute only while `training` is set, and a
frozen LLM is in evaluation.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LogitsProcessor, PreTrainedModel
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
from palam.models.finite import check_logits
from palam.utils.texts import first_line

SAMPLED_EMBEDDINGS = 8192
"""At most so many embeddings are read to measure their size."""
TOLERANCE = 1e-3
"""How far logits may be from those they should equal, relative to the largest (at least to 1)."""
COARSE_TOLERANCE = 0.1
"""How far they may be on average, relative to their own average, in 16 bits or fewer."""
PADDING = 5
"""Positions of padding before a text, in the check that they change nothing."""


class CompiledLayer(NamedTuple):
    """One of the LLM's layers, and its forward pass compiled."""

    layer: nn.Module
    forward: Callable[..., Any]


# ------------------------------------------------------------------ loading and checking
def load_llm(
    name_or_path: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    device_map: Any = None,
    attention: str | None = None,
    load_in: str | None = None,
) -> PreTrainedModel:
    """Load a decoder-only language model; frozen, in evaluation.

    Args:
        name_or_path: a folder, a hub id, or `starter:llm`. This and the others are as in
            [`load_encoder`].
        device_map: as in transformers, to spread it over several devices; `device` is then not
            used.

    Raises:
        PalamError: it cannot be found or read, a weight is missing, or it is not decoder-only.
    """
    located = load_config(name_or_path, "LLM", revision)
    if located.config.is_encoder_decoder:
        raise PalamError(
            f"LLM {name_or_path!r} is an encoder-decoder; Palam needs a decoder-only model"
        )
    options = {"device_map": device_map}
    options.update(quantization_options(load_in, dtype, device, device_map))
    model: Any = load_weights(
        AutoModelForCausalLM.from_pretrained,
        located.path,
        name_or_path,
        "LLM",
        config=located.config,
        revision=revision,
        dtype=dtype,
        attn_implementation=attention,
        **options,
    )
    if device is not None and options["device_map"] is None:
        model = model.to(device=device)
    frozen: PreTrainedModel = freeze(model)
    return frozen


@torch.no_grad()
def check_llm(model: PreTrainedModel) -> None:
    """Check on eight tokens that vectors can stand in for tokens, and that it reads left to right.

    Raises:
        PalamError: it takes no `inputs_embeds`; or gives other logits for the embeddings of ids
            than for the ids (it needs the ids too, as with embeddings per layer); or a token sees
            those after it; or a text behind padding gives other logits than alone; or the logits
            are not finite.
    """
    name = model.name_or_path or type(model).__name__
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise PalamError(f"LLM {name!r} takes no inputs_embeds: it cannot read the encoder's text")
    ids = probe_ids(model)
    with readable_errors(name, "LLM", "cannot be used"):
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        check_logits(expected, expected.dtype)
        logits = _logits_of_embeddings(model, ids)
        if logits is None or logits.shape != expected.shape or not _close(logits, expected):
            raise PalamError("it needs token ids beside inputs_embeds, and mapped text has none")
        # The rows differ in their last token alone.
        largest = float(logits.abs().max())
        if float((logits[0, 0] - logits[1, 0]).abs().max()) > TOLERANCE * max(1.0, largest):
            raise PalamError(
                "its tokens see those after them; Palam needs a decoder-only language model"
            )
        if not _close_to_rounding(model, _logits_behind_padding(model, ids[:1]), expected[:1]):
            raise PalamError(
                "a text behind padding gives other logits than alone (it reads the padding, or "
                "numbers positions in its own way); Palam reads texts in padded batches"
            )


def _logits_of_embeddings(model: PreTrainedModel, ids: Tensor) -> Tensor | None:
    """The logits for the embeddings of ids; None if the model cannot do without the ids."""
    try:
        embed: Any = model.get_input_embeddings()
        output = model(inputs_embeds=embed(ids), attention_mask=torch.ones_like(ids))
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return None
    logits: Tensor = output.logits
    return logits


def _logits_behind_padding(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits [1, tokens, vocabulary] of one row that is padded as a batch's shorter rows are.

    That is on the left, with vectors of zeros; see [`build_llm_inputs`].
    """
    embed: Any = model.get_input_embeddings()
    embeds = embed(ids)
    padding = embeds.new_zeros(1, PADDING, embeds.shape[-1])
    real = torch.ones_like(ids)
    masked = real.new_zeros(1, PADDING)
    options: dict[str, Any] = {}
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = torch.cat([masked, real.cumsum(1) - 1], 1)
    output = model(
        inputs_embeds=torch.cat([padding, embeds], 1),
        attention_mask=torch.cat([masked, real], 1),
        **options,
    )
    logits: Tensor = output.logits[:, PADDING:]
    return logits


def rounds_much(model: PreTrainedModel) -> bool:
    """Whether a model computes, or keeps its weights, in 16 bits or fewer.

    What it gives for the same input read in two ways then differs by so much rounding that only
    the mean of all differences tells whether there is more to it.
    """
    return model.dtype != torch.float32 or bool(getattr(model, "is_quantized", False))


def _close_to_rounding(model: PreTrainedModel, logits: Tensor, expected: Tensor) -> bool:
    """Whether logits differ by rounding alone."""
    if not rounds_much(model):
        return _close(logits, expected)
    difference = (logits.float() - expected.float()).abs().mean()
    return bool(difference <= COARSE_TOLERANCE * expected.float().abs().mean())


def _close(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are as expected; those that are not numbers are not."""
    difference = float((logits - expected).abs().max())
    return difference <= TOLERANCE * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def embedding_rms(model: PreTrainedModel) -> float:
    """Root mean square of what the embedding module returns, over ids spread over its table."""
    size = model.config.get_text_config().vocab_size
    count = min(size, SAMPLED_EMBEDDINGS)
    ids = torch.linspace(0, size - 1, count, dtype=torch.float64).round().long()
    module: Any = model.get_input_embeddings()
    vectors = module(ids.to(module.weight.device)).float()
    return float(vectors.square().mean().sqrt())


# ------------------------------------------------------------------ training through it
def enable_checkpointing(llm: PreTrainedModel, kwargs: dict[str, Any] | None = None) -> None:
    """Recompute the LLM's layers in the backward pass instead of keeping their states.

    It stays frozen.

    Args:
        llm: of [`load_llm`].
        kwargs: for `torch.utils.checkpoint.checkpoint`, beside `use_reentrant=False`.

    Raises:
        PalamError: the model does not support it.
    """
    # The older name is deprecated where the newer one exists.
    newer = getattr(llm, "activation_checkpointing_enable", None)
    enable = newer or llm.gradient_checkpointing_enable
    options = {"use_reentrant": False, **(kwargs or {})}
    with readable_errors(type(llm).__name__, "LLM", "cannot recompute its layers"):
        enable(options)
        if not _checkpointed(llm):
            raise PalamError("it does not support gradient checkpointing; train without it")
    for layer in _checkpointed(llm):
        # A layer's own dropout would wake up with its `training`.
        for name, value in vars(layer).items():
            if "dropout" in name and isinstance(value, float):
                setattr(layer, name, 0.0)
    keep_frozen(llm)


def keep_frozen(llm: PreTrainedModel, training: bool = True) -> None:
    """Put everything in evaluation; with `training`, let checkpointed layers (alone) recompute.

    Pass `training=False` before generating: a layer that recomputes drops the cache of past tokens.
    """
    llm.train(False)
    for layer in _checkpointed(llm):
        layer.training = training


def _checkpointed(llm: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    return [layer for layer in decoder_layers(llm) if layer.gradient_checkpointing]


def decoder_layers(llm: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The LLM's layers, in their order; none where it is not built of such."""
    return [module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(llm: PreTrainedModel) -> list[CompiledLayer]:
    """The LLM's layers, each with its forward pass compiled; the model itself stays as it is.

    The layers are alike, so one of them is compiled for all, for batches of any shape, at the first
    training step.

    Raises:
        PalamError: torch.compile does not work here (on a CPU it needs a C++ compiler), or no
            layers are found.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=llm.device))
    except Exception as error:  # whatever a compiler that is missing or broken makes of it
        reason = first_line(error)
        raise PalamError(f"torch.compile does not work here ({reason}); train without it") from None
    layers = decoder_layers(llm)
    if not layers:
        raise PalamError(
            f"{type(llm).__name__} has no layers that could be compiled; train without it"
        )
    return [CompiledLayer(layer, torch.compile(layer.forward, dynamic=True)) for layer in layers]


@contextmanager
def with_compiled(layers: Sequence[CompiledLayer]) -> Iterator[None]:
    """Within the block these layers run compiled (see [`compile_layers`])."""
    for layer, forward in layers:
        vars(layer)["forward"] = forward
    try:
        yield
    finally:
        for layer, _ in layers:
            del vars(layer)["forward"]


def shard_layers(llm: PreTrainedModel, device: torch.device) -> None:
    """Spread the weights of the LLM's layers over the processes, in place (torch's FSDP2).

    A layer is put together when it computes and taken apart again; its weights then are on the
    device. The embeddings and the head stay whole, where they are.

    Args:
        llm: frozen; with the same weights in every process.
        device: of this process.

    Raises:
        PalamError: no layers are found.
    """
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = decoder_layers(llm)
    if not layers:
        raise PalamError(
            f"{type(llm).__name__} has no layers that could be spread; train without shard_llm"
        )
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for layer in layers:
        # Each layer is a root of its own, which without being told stays together.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


# ------------------------------------------------------------------ generating
GREEDY_OPTIONS: dict[str, Any] = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "penalty_alpha": None,
    "prompt_lookup_num_tokens": None,
    "watermarking_config": None,
}
"""What switches off all that an LLM's generation config may have beside the likeliest token."""


class FiniteLogits(LogitsProcessor):
    """Stops transformers' `generate` where the logits are not finite.

    Args:
        dtype: of the LLM, for the message.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Pass the logits [batch, vocabulary] on.

        Raises:
            PalamError: NaN or infinity is among them.
        """
        check_logits(scores, self.dtype)
        return scores


def generates_from_vectors(llm: PreTrainedModel) -> bool:
    """Whether transformers' `generate` takes this class's input as vectors.

    Args:
        llm: of [`load_llm`], not inside a peft model.
    """
    prepare: Any = getattr(llm, "prepare_inputs_for_generation", None)
    return prepare is not None and "inputs_embeds" in inspect.signature(prepare).parameters


def stop_ids(llm: PreTrainedModel, tokenizer: Any, end_ids: Sequence[int] = ()) -> list[int]:
    """Where generation stops: the LLM's own stop tokens, EOS, and what ends an answer.

    Args:
        llm: of [`load_llm`], inside a peft model or not.
        tokenizer: the LLM's.
        end_ids: what ends an answer in training; the last of them stops.

    Returns:
        The ids, sorted; [] if the tokenizer has no EOS and nothing ends an answer.
    """
    ends = {tokenizer.eos_token_id, *end_ids[-1:]} - {None}
    if not ends:
        return []
    configured: Any = llm.generation_config.eos_token_id
    stops = configured if isinstance(configured, list) else [configured]
    return sorted(ends | (set(stops) - {None}))


def stopping_options(
    llm: PreTrainedModel, tokenizer: Any, end_ids: Sequence[int] = ()
) -> dict[str, Any]:
    """Arguments of transformers' `generate`: where it stops, and what pads the rows that have.

    Args:
        llm, tokenizer, end_ids: see [`stop_ids`]; nothing is set if it gives none.
    """
    stops = stop_ids(llm, tokenizer, end_ids)
    if not stops:
        return {}
    options: dict[str, Any] = {"eos_token_id": stops}
    defaults: Any = llm.generation_config
    if defaults.pad_token_id is None:
        pad = tokenizer.pad_token_id
        eos = tokenizer.eos_token_id
        fallback = stops[0] if eos is None else eos
        options["pad_token_id"] = fallback if pad is None else pad
    return options
