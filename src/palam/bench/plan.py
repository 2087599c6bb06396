"""What a training run will need, found without a weight in memory.

The models' own code runs on fake tensors, which have shapes and no data.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from palam.bench.device_memory import GIB, Device, WeightSizes, ways_that_fit
from palam.bench.sketches import (
    SavedTensors,
    add_low_rank,
    size_in_bytes,
    sketch_bridge,
    sketch_encoders,
    sketch_llm,
    trained_parameters,
    unchanged,
)
from palam.models.backbones.llm import enable_checkpointing
from palam.models.bridge import PalamBridge
from palam.models.llm_cache import cache_arguments
from palam.models.model_config import ModelConfig
from palam.starter.resolve import resolve
from palam.training.arguments import RunLength, check_batch_size
from palam.training.config import OptimConfig, TrainRuntimeConfig
from palam.training.distillation import MAX_ANSWER_TOKENS
from palam.utils.autotune import matmul_seconds
from palam.utils.device import Placement, pick_device, resolve_placement
from palam.utils.progress import duration

USUAL_SHARE = 0.5
"""Of the matrix rate, which training on short texts reaches."""
LABEL_TOKENS = 4
"""The LLM's, of a label with its end."""
ANY_DEVICE = Device()
MATRIX_PRODUCT_OPERATIONS = 2 * 2048**3
"""Of the product that [`matmul_seconds`] measures."""


@dataclass
class Plan:
    """Bytes, floating-point operations and seconds of a run."""

    trained_parameters: int
    memory: dict[str, int]
    """Bytes: `encoder`, `LLM`, `bridge` (weights, gradients, optimiser), `encoder states`,
    `activations`, `logits`."""
    operations: dict[str, float]
    """Of a batch: `encoder`, `LLM and bridge` (forward, and backward through activations), and
    where it distills `teacher`: the LLM that reads the text itself."""
    tokens: int
    """That the models read in a batch."""
    rows: int
    """Of the training data."""
    length: RunLength
    """Of the run."""
    rate: float
    """Matrix multiplications of the device in this dtype, operations a second; measured or
    given."""
    batch: int
    """Texts of a batch."""
    sequence_tokens: int
    """Of a text's sequence in the LLM, its answer included."""
    answer_tokens: int
    """Of these, the answer's."""
    forward_operations: float
    """Of the bridge and the LLM in the forward pass of a batch."""
    llm_weights: WeightSizes
    """The LLM's weights by how they can be held."""
    answering_operations: float = 0
    """Of the LLM's answer to a prompt about one text, before training; 0 if there are none."""
    device: Device = ANY_DEVICE
    """What it is planned for; memory, operations and tokens are those of one process."""

    @property
    def batch_seconds(self) -> float:
        """A batch at the full matrix rate, which no real one reaches."""
        return sum(self.operations.values()) / self.rate

    @property
    def training_seconds(self) -> float:
        """All batches at the full matrix rate."""
        return self.length.batches * self.batch_seconds

    @property
    def answering_seconds(self) -> float:
        """The LLM's answers to the prompts about all rows, at the full matrix rate."""
        return self.rows * self.answering_operations / self.rate

    def reading_seconds(self, labels: int) -> float:
        """Seconds to score the labels of one text at the full matrix rate.

        It is one forward pass, in which the tokens of all labels follow the text.

        Args:
            labels: how many.
        """
        operations = self.operations["encoder"]
        operations += self.forward_operations * label_factor(
            labels, self.sequence_tokens, self.answer_tokens
        )
        return operations / self.batch / self.rate

    def free_answer_seconds(self, tokens: int) -> float:
        """Seconds to read one text and to answer freely, at the full matrix rate.

        Args:
            tokens: of the answer; each takes what one of the text takes.
        """
        operations = self.operations["encoder"]
        operations += self.forward_operations * (1 + tokens / self.sequence_tokens)
        return operations / self.batch / self.rate

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return sum(self.memory.values())

    def fit_in_words(self, memory: int) -> str:
        """Whether the run fits a device with so many bytes, and with which options it would."""
        size = f"{memory / GIB:,.0f} GiB"
        if self.memory_bytes <= memory:
            return f"fits {size}"
        other_bytes = self.memory_bytes - self.memory["LLM"]
        ways = ways_that_fit(self.llm_weights, other_bytes, memory, self.device.processes)
        listed = ", ".join(f"{way} ({needs / GIB:,.1f} GiB)" for way, needs in ways.items() if way)
        if listed:
            return f"does not fit {size}; it would with {listed}"
        return (
            f"does not fit {size}, and no option alone makes it fit; give a smaller "
            "--batch-size, --gradient-checkpointing, or more --processes"
        )

    def lines(self) -> dict[str, str]:
        """Names and values for people to read."""
        operations = sum(self.operations.values())
        fastest_batch = self.batch_seconds
        usual_batch = fastest_batch / USUAL_SHARE
        steps, batches = self.length
        amount = f"{steps:,}" if steps == batches else f"{steps:,} of {batches:,} batches"
        lines = {"trained parameters": f"{self.trained_parameters:,}"}
        for part, size in self.memory.items():
            lines[f"memory, {part}"] = f"{size / 2**20:,.0f} MiB"
        of_each = " in each process" if self.device.processes > 1 else ""
        lines["memory, all"] = f"{self.memory_bytes / GIB:,.2f} GiB{of_each}"
        if self.device.memory is not None:
            lines["device"] = self.fit_in_words(self.device.memory)
        for part, count in self.operations.items():
            lines[f"arithmetic, {part}"] = f"{count / operations:.0%}"
        lines["arithmetic"] = (
            f"{operations / self.tokens / 1e9:,.2f} · 10⁹ operations a token, "
            f"{self.tokens:,} tokens a batch"
        )
        lines["matrix rate"] = f"{self.rate / 1e12:,.2f} · 10¹² operations a second"
        lines["a batch"] = (
            f"{fastest_batch:,.2f} s at that rate, {usual_batch:,.2f} s at {USUAL_SHARE:.0%} of it"
        )
        lines["all steps"] = f"{amount}: {_span(self.training_seconds)}"
        if self.answering_operations:
            lines["answers to prompts"] = f"{self.rows:,}: {_span(self.answering_seconds)}"
        return lines


def label_factor(labels: int, sequence_tokens: int, answer_tokens: int) -> float:
    """How much longer a sequence with the tokens of all labels is than one with one answer.

    Args:
        labels: how many.
        sequence_tokens: of the sequence with one answer.
        answer_tokens: of an answer.
    """
    return (sequence_tokens + (labels - 1) * answer_tokens) / sequence_tokens


def _span(seconds: float) -> str:
    """A time at the full matrix rate and at the usual one, in words."""
    return f"{duration(seconds)} to {duration(seconds / USUAL_SHARE)}"


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

    @property
    def teacher_sequence(self) -> int:
        """LLM tokens of a row where the LLM reads the text itself."""
        return self.prompt + self.text + self.answer


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
    answer_tokens: int = LABEL_TOKENS,
    hardware: Device = ANY_DEVICE,
) -> Plan:
    """Memory, arithmetic and time of a training run.

    Args:
        model: the base models, the fusion and the mapper.
        optim: batch size, accumulation, and epochs or steps.
        runtime: device, dtype, gradient checkpointing, and how the LLM's weights are held.
        rows: of the training data. Of raw text, the rows whose prompts are answered are these too;
            the validation rows are not counted.
        text_tokens: the encoder's, of a text.
        prompt_tokens: the LLM's, around the text.
        answer_tokens: the LLM's, of the answer with its end.
        hardware: what it is planned for.

    Raises:
        PalamError: base models that cannot be found or used, or a batch that cannot be shared.
    """
    processes = hardware.processes
    check_batch_size(optim, processes)
    placement = resolve_placement(runtime.device, runtime.dtype)
    dtype = placement["dtype"]
    reads_text = optim.llm_only or model.append_source_tokens
    lengths = _Lengths(
        batch=optim.batch_size // processes,
        text=text_tokens,
        prompt=prompt_tokens,
        answer=answer_tokens,
        own_text=text_tokens if reads_text else 0,
    )
    for base in (model.encoder, model.second_encoder, model.llm):
        if base is not None:
            resolve(base)  # a starter model is converted with real tensors
    with FakeTensorMode():
        step = _sketch_step(model, optim, runtime, placement, lengths)
    reading = step.reading
    shards = processes if runtime.shard_llm else 1
    return Plan(
        trained_parameters=step.trained_parameters,
        memory={
            "encoder": step.encoder_bytes,
            "LLM": step.llm_weights.held(runtime.load_in, shards=shards),
            "bridge": 4 * step.trained_parameters * 4,  # fp32: weights, gradients, two moments
            "encoder states": size_in_bytes(step.states),
            "activations": reading.activation_bytes,
            # In their dtype, and in fp32 a copy, its log-softmax and the gradient.
            "logits": reading.logits.numel() * (dtype.itemsize + 3 * 4),
        },
        operations=step.operations,
        tokens=lengths.batch * step.row_tokens,
        rows=rows,
        length=RunLength.of(optim, rows),
        rate=measured_rate(placement) if hardware.rate is None else hardware.rate,
        batch=lengths.batch,
        sequence_tokens=reading.sequence_tokens,
        answer_tokens=lengths.answer,
        forward_operations=reading.forward_operations,
        llm_weights=step.llm_weights,
        answering_operations=step.answering_operations,
        device=hardware.with_memory_of(pick_device(runtime.device)),
    )


class _Step(NamedTuple):
    """A step of a run, and the models in it."""

    encoder_bytes: int
    """Of the encoders' weights."""
    llm_weights: WeightSizes
    trained_parameters: int
    states: Sequence[Tensor]
    """Of the encoders, each [batch, text, d_enc]; none where the LLM reads the text itself."""
    reading: _Reading
    operations: dict[str, float]
    """See [`Plan.operations`]."""
    row_tokens: int
    """That the models read of a row."""
    answering_operations: float
    """See [`Plan.answering_operations`]."""


def _sketch_step(
    model: ModelConfig,
    optim: OptimConfig,
    runtime: TrainRuntimeConfig,
    placement: Placement,
    lengths: _Lengths,
) -> _Step:
    """Run a step on fake tensors.

    Args:
        model, optim, runtime: see [`plan`].
        placement: of the base models.
        lengths: of the batch.
    """
    dtype, attention = placement["dtype"], placement["attention"]
    encoders = sketch_encoders(model, dtype, attention)
    llm = sketch_llm(model, dtype, attention)
    if runtime.gradient_checkpointing:
        enable_checkpointing(llm)
    llm_weights = WeightSizes.of(llm)
    trained = 0
    if optim.lora_rank is not None:
        add_low_rank(llm, optim.lora_rank)
        trained += trained_parameters(llm)
    operations: dict[str, float] = {"encoder": 0}
    states: list[Tensor] = []
    row_tokens = 0
    bridge = None
    if not optim.llm_only:
        encodings = [_run_encoder(encoder, lengths) for encoder in encoders]
        for encoding in encodings:
            operations["encoder"] += encoding.operations
            states += encoding.states
        bridge = sketch_bridge(model, [encoding.states for encoding in encodings], llm)
        trained += trained_parameters(bridge)
        row_tokens += lengths.text
    reading = _run_bridge_and_llm(bridge, llm, states, lengths)
    operations["LLM and bridge"] = reading.operations
    row_tokens += reading.sequence_tokens
    if optim.distill:
        operations["teacher"] = forward_operations(
            llm, lengths.batch, lengths.teacher_sequence, lengths.answer + 1
        )
        row_tokens += lengths.teacher_sequence
    answering = 0.0
    if optim.prompts_file is not None:
        answering = generation_operations(llm, lengths.prompt + lengths.text, MAX_ANSWER_TOKENS)
    return _Step(
        encoder_bytes=sum(size_in_bytes(encoder.parameters()) for encoder in encoders),
        llm_weights=llm_weights,
        trained_parameters=trained,
        states=states,
        reading=reading,
        operations=operations,
        row_tokens=row_tokens,
        answering_operations=answering,
    )


def measured_rate(placement: Placement) -> float:
    """Operations a second of a device's matrix multiplication, measured."""
    seconds = statistics.median(matmul_seconds(str(placement["device"]), placement["dtype"]))
    return MATRIX_PRODUCT_OPERATIONS / seconds


@torch.no_grad()
def forward_operations(llm: Any, batch: int, tokens: int, logits: int) -> int:
    """What an LLM takes to read a batch of rows of so many tokens, with logits at the last ones."""
    ids = torch.ones(batch, tokens, dtype=torch.long)
    positions = torch.arange(tokens - logits, tokens)
    with FlopCounterMode(display=False) as counter:
        llm(ids, use_cache=False, logits_to_keep=positions)
    return int(counter.get_total_flops())


@torch.no_grad()
def generation_operations(llm: Any, tokens: int, new_tokens: int) -> float:
    """What an LLM takes to read a row of so many tokens and to answer it.

    A token of the answer takes what one in its middle takes: it grows evenly with what stands
    before.
    """
    first = forward_operations(llm, 1, tokens, 1)
    before = torch.ones(1, tokens + new_tokens // 2 - 1, dtype=torch.long)
    cache = cache_arguments(llm(before, use_cache=True, logits_to_keep=1))
    if not cache:  # the LLM keeps a state, which does not grow
        later = forward_operations(llm, 1, tokens + 1, 1) - first
    else:
        token = torch.ones(1, 1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            llm(token, use_cache=True, **cache)
        later = counter.get_total_flops()
    return first + (new_tokens - 1) * later


def _run_encoder(encoder: nn.Module, lengths: _Lengths) -> _Encoding:
    """A forward pass of the encoder."""
    ids = torch.ones(lengths.batch, lengths.text, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = encoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        )
    return _Encoding(output.hidden_states[1:], counter.get_total_flops())


def encoder_operations(encoder: nn.Module, tokens: int) -> int:
    """What an encoder takes to read a text of so many tokens."""
    return _run_encoder(encoder, _Lengths(batch=1, text=tokens, prompt=0, answer=0)).operations


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
    saved = SavedTensors([llm] if bridge is None else [bridge, llm])
    wanted = lengths.answer + 1
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, unchanged):
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
