"""What a training run will need, found without a weight in memory.

The models' own code runs on fake tensors, which have shapes and no data.
"""

import inspect
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from palam.models.backbones.adapters import target_names
from palam.models.backbones.encoder import encoder_part
from palam.models.backbones.llm import enable_checkpointing
from palam.models.backbones.loading import freeze, load_config, readable_errors
from palam.models.bridge import PalamBridge
from palam.models.configuration import PalamConfig
from palam.models.model_config import ModelConfig
from palam.starter.resolve import resolve
from palam.training.config import OptimConfig, TrainRuntimeConfig
from palam.utils.autotune import matmul_seconds
from palam.utils.device import resolve_placement

USUAL_SHARE = 0.5
"""Of the matrix rate, which training on short texts reaches."""
MATRIX_PRODUCT_OPERATIONS = 2 * 2048**3
"""Of the product that [`matmul_seconds`] measures."""
FAULT = "cannot be planned with"


@dataclass
class Plan:
    """Bytes, floating-point operations and seconds of a run; a step is one batch."""

    trained_parameters: int
    memory: dict[str, int]
    """Bytes: `encoder`, `LLM`, `bridge` (weights, gradients, optimiser), `encoder states`,
    `activations`, `logits`."""
    operations: dict[str, float]
    """Of a step: `encoder`, `LLM and bridge` (forward, and backward through activations)."""
    tokens: int
    """That the two models read in a step."""
    steps: int
    """Of all epochs."""
    rate: float
    """Matrix multiplications of the device in this dtype, operations a second; measured or
    given."""
    batch: int
    """Texts of a step."""
    sequence_tokens: int
    """Of a text's sequence in the LLM, its answer included."""
    answer_tokens: int
    """Of these, the answer's."""
    forward_operations: float
    """Of the bridge and the LLM in the forward pass of a step."""

    @property
    def step_seconds(self) -> float:
        """A step at the full matrix rate, which no real one reaches."""
        return sum(self.operations.values()) / self.rate

    def reading_seconds(self, labels: int) -> float:
        """Seconds to score the labels of one text at the full matrix rate.

        It is one forward pass, in which the tokens of all labels follow the text.

        Args:
            labels: how many.
        """
        tokens = self.sequence_tokens + (labels - 1) * self.answer_tokens
        operations = self.operations["encoder"]
        operations += self.forward_operations * tokens / self.sequence_tokens
        return operations / self.batch / self.rate

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return sum(self.memory.values())

    def lines(self) -> dict[str, str]:
        """Names and values for people to read."""
        operations = sum(self.operations.values())
        fastest_step = self.step_seconds
        usual_step = fastest_step / USUAL_SHARE
        fastest_run = _duration(self.steps * fastest_step)
        usual_run = _duration(self.steps * fastest_step / USUAL_SHARE)
        lines = {"trained parameters": f"{self.trained_parameters:,}"}
        for part, size in self.memory.items():
            lines[f"memory, {part}"] = f"{size / 2**20:,.0f} MiB"
        lines["memory, all"] = f"{self.memory_bytes / 2**30:,.2f} GiB"
        for part, count in self.operations.items():
            lines[f"arithmetic, {part}"] = f"{count / operations:.0%}"
        lines["arithmetic"] = (
            f"{operations / self.tokens / 1e9:,.2f} · 10⁹ operations a token, "
            f"{self.tokens:,} tokens a step"
        )
        lines["matrix rate"] = f"{self.rate / 1e12:,.2f} · 10¹² operations a second"
        lines["a step"] = (
            f"{fastest_step:,.2f} s at that rate, {usual_step:,.2f} s at {USUAL_SHARE:.0%} of it"
        )
        lines["all steps"] = f"{self.steps:,}: {fastest_run} to {usual_run}"
        return lines


class _Lengths(NamedTuple):
    """The shape of a batch."""

    batch: int
    text: int
    """Encoder tokens of a text."""
    prompt: int
    """LLM tokens around it."""
    answer: int
    """LLM tokens of the answer."""
    own_text: int = 0
    """LLM tokens of the text itself, where the LLM reads it."""


class _Encoding(NamedTuple):
    """The encoder's part of a step."""

    states: Sequence[Tensor]
    """L tensors [batch, text, d_enc]."""
    operations: int


class _Reading(NamedTuple):
    """The bridge's and the LLM's part of a step."""

    logits: Tensor
    """[batch, answer + 1, vocabulary]"""
    sequence_tokens: int
    """Of a row that the LLM reads."""
    activation_bytes: int
    """Of what the forward pass keeps for the backward pass."""
    operations: int
    forward_operations: int
    """Of these, the forward pass's."""


def plan(
    model: ModelConfig,
    optim: OptimConfig,
    runtime: TrainRuntimeConfig,
    *,
    rows: int,
    text_tokens: int = 64,
    prompt_tokens: int = 8,
    answer_tokens: int = 4,
    rate: float | None = None,
) -> Plan:
    """Memory, arithmetic and time of a training run.

    Args:
        model: the base models, the fusion and the mapper.
        optim: batch size and epochs.
        runtime: device, dtype, gradient checkpointing.
        rows: of the training data.
        text_tokens: the encoder's, of a text.
        prompt_tokens: the LLM's, around the text.
        answer_tokens: the LLM's, of the answer with its end.
        rate: operations a second of the device's matrix multiplication; None measures it.

    Raises:
        PalamError: base models that cannot be found or used.
    """
    placement = resolve_placement(runtime.device, runtime.dtype)
    dtype = placement["dtype"]
    reads_text = optim.llm_only or model.append_source_tokens
    lengths = _Lengths(
        batch=optim.batch_size,
        text=text_tokens,
        prompt=prompt_tokens,
        answer=answer_tokens,
        own_text=text_tokens if reads_text else 0,
    )
    for base in (model.encoder, model.llm):
        resolve(base)  # a starter model is converted with real tensors
    with FakeTensorMode():
        encoder = _sketch_encoder(model, dtype, placement["attention"])
        llm = _sketch_llm(model, dtype, placement["attention"])
        if runtime.gradient_checkpointing:
            enable_checkpointing(llm)
        llm_size = _bytes(llm.parameters())
        trained = 0
        if optim.lora_rank is not None:
            _add_low_rank(llm, optim.lora_rank)
            trained += _trained_parameters(llm)
        encoding = _run_encoder(encoder, lengths)
        bridge = _sketch_bridge(model, encoding.states, llm)
        if optim.llm_only:
            encoding = _Encoding((), 0)
            reading = _run_bridge_and_llm(None, llm, (), lengths)
        else:
            trained += _trained_parameters(bridge)
            reading = _run_bridge_and_llm(bridge, llm, encoding.states, lengths)
    encoder_tokens = 0 if optim.llm_only else lengths.text
    if rate is None:
        seconds = statistics.median(matmul_seconds(str(placement["device"]), dtype))
        rate = MATRIX_PRODUCT_OPERATIONS / seconds
    return Plan(
        trained_parameters=trained,
        memory={
            "encoder": _bytes(encoder.parameters()),
            "LLM": llm_size,
            "bridge": 4 * trained * 4,  # fp32: weights, gradients, AdamW's two moments
            "encoder states": _bytes(encoding.states),
            "activations": reading.activation_bytes,
            # In their dtype, and in fp32 a copy, its log-softmax and the gradient.
            "logits": reading.logits.numel() * (dtype.itemsize + 3 * 4),
        },
        operations={"encoder": encoding.operations, "LLM and bridge": reading.operations},
        tokens=lengths.batch * (encoder_tokens + reading.sequence_tokens),
        steps=math.ceil(math.ceil(rows / lengths.batch) * optim.epochs),
        rate=rate,
        batch=lengths.batch,
        sequence_tokens=reading.sequence_tokens,
        answer_tokens=lengths.answer,
        forward_operations=reading.forward_operations,
    )


def _sketch_encoder(model: ModelConfig, dtype: torch.dtype, attention: str | None) -> Any:
    """The encoder without weights."""
    with readable_errors(model.encoder, "encoder", FAULT):
        located = load_config(model.encoder, "encoder", model.encoder_revision)
        part = encoder_part(located.config)
        encoder_class: Any = part.model_class
        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
        if "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters:
            options["add_pooling_layer"] = False
        return freeze(encoder_class._from_config(part.config, **options))


def _sketch_llm(model: ModelConfig, dtype: torch.dtype, attention: str | None) -> Any:
    """The LLM without weights."""
    causal_lm: Any = AutoModelForCausalLM
    with readable_errors(model.llm, "LLM", FAULT):
        located = load_config(model.llm, "LLM", model.llm_revision)
        llm = causal_lm.from_config(
            located.config, trust_remote_code=False, dtype=dtype, attn_implementation=attention
        )
        return freeze(llm)


def _sketch_bridge(model: ModelConfig, states: Sequence[Tensor], llm: Any) -> PalamBridge:
    """The bridge without weights, between states [..., d_enc] and the LLM."""
    config = PalamConfig(
        encoder_hidden_size=states[0].shape[-1],
        encoder_num_layers=len(states),
        llm_hidden_size=llm.get_input_embeddings().weight.shape[-1],
        fusion=model.fusion,
        fusion_options=model.all_fusion_options,
        mapper=model.mapper,
        mapper_options=model.mapper_options,
    )
    return PalamBridge(config)


def _run_encoder(encoder: nn.Module, lengths: _Lengths) -> _Encoding:
    """A forward pass of the encoder."""
    ids = torch.ones(lengths.batch, lengths.text, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = encoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        )
    return _Encoding(output.hidden_states[1:], counter.get_total_flops())


def _run_bridge_and_llm(
    bridge: PalamBridge | None, llm: Any, states: Sequence[Tensor], lengths: _Lengths
) -> _Reading:
    """A forward and a backward pass of the bridge and the LLM.

    Args:
        bridge: None is an LLM that reads the text itself.
        llm: perhaps with a LoRA.
        states: of the encoder.
        lengths: of the batch.
    """
    saved = _SavedTensors([llm] if bridge is None else [bridge, llm])
    wanted = lengths.answer + 1
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, _unchanged):
            boundary = 0 if bridge is None else 1
            others = lengths.prompt + lengths.own_text + lengths.answer + boundary
            ids = torch.ones(lengths.batch, others, dtype=torch.long)
            sequence = llm.get_input_embeddings()(ids)
            if bridge is not None:
                mapped, _ = bridge([state.reshape(-1, state.shape[-1]) for state in states])
                text = mapped.reshape(lengths.batch, lengths.text, -1).to(sequence.dtype)
                sequence = torch.cat([text, sequence], 1)
            total = sequence.shape[1]
            positions = torch.arange(total - wanted, total)
            output = llm(inputs_embeds=sequence, use_cache=False, logits_to_keep=positions)
            logits = output.logits[:, -wanted:]
        forward_operations = counter.get_total_flops()
        logits.float().sum().backward()
    operations = counter.get_total_flops()
    return _Reading(logits, total, saved.bytes(), operations, forward_operations)


class _LowRank(nn.Module):
    """A linear layer with a LoRA; peft makes none without data."""

    def __init__(self, base: Any, rank: int) -> None:
        super().__init__()
        self.base = base
        rows, columns = base.weight.shape
        inputs, outputs = (columns, rows) if isinstance(base, nn.Linear) else (rows, columns)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)

    def forward(self, states: Tensor) -> Any:
        """The layer's output, and what the LoRA adds in fp32."""
        added = self.up(self.down(states.float()))
        return self.base(states) + added.to(states.dtype)


def _add_low_rank(llm: Any, rank: int) -> None:
    """Put a LoRA on the linear layers that a training run puts one on."""
    for name in target_names(llm, "all-linear"):
        parent_name, _, attribute = name.rpartition(".")
        parent = llm.get_submodule(parent_name)
        setattr(parent, attribute, _LowRank(getattr(parent, attribute), rank))


def _trained_parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


class _SavedTensors:
    """What a forward pass keeps for the backward pass, without the weights of the modules."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._weights = {id(weight) for module in modules for weight in module.parameters()}
        self._tensors: dict[int, Tensor] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Called by autograd with each tensor that it saves."""
        if id(tensor) not in self._weights and id(tensor._base) not in self._weights:
            self._tensors[id(tensor)] = tensor
        return tensor

    def bytes(self) -> int:
        """Of their storages, each counted once."""
        storages = {}
        for tensor in self._tensors.values():
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
        return sum(storages.values())


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{max(seconds, 60) / 60:.0f} min"


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
