"""What a training run will need, found without a weight in memory: the models' own code runs on fake tensors."""

import math
import statistics
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from palam.models.backbones.encoder import encoder_part
from palam.models.backbones.llm import enable_checkpointing
from palam.models.backbones.loading import freeze, load_config, readable_errors
from palam.models.bridge import PalamBridge
from palam.models.configuration import PalamConfig, split_options
from palam.starter import resolve
from palam.training.config import TrainConfig
from palam.utils.autotune import matmul_seconds
from palam.utils.device import resolve_placement

USUAL_SHARE = 0.5  # of the matrix rate, in training on short texts


@dataclass
class Plan:
    """Bytes, floating-point operations and seconds of a run; a step is one batch."""

    trained_parameters: int
    memory: dict[str, int]
    """Bytes: `encoder`, `LLM`, `bridge` (weights, gradients, optimiser), `encoder states`, `activations`, `logits`."""
    operations: dict[str, float]
    """Of a step: `encoder`, `LLM and bridge` (forward, and backward through activations)."""
    tokens: int
    """That the two models read in a step."""
    steps: int
    rate: float
    """Matrix multiplications of the device in this dtype, operations a second; measured or given."""

    @property
    def step_seconds(self) -> float:
        """A step at the full matrix rate, which no real one reaches."""
        return sum(self.operations.values()) / self.rate

    def lines(self) -> dict[str, str]:
        """For people to read."""
        total, step = sum(self.operations.values()), self.step_seconds
        return {
            "trained parameters": f"{self.trained_parameters:,}",
            **{f"memory, {part}": f"{size / 2**20:,.0f} MiB" for part, size in self.memory.items()},
            "memory, all": f"{sum(self.memory.values()) / 2**30:,.2f} GiB",
            **{
                f"arithmetic, {part}": f"{count / total:.0%}"
                for part, count in self.operations.items()
            },
            "arithmetic": f"{total / self.tokens / 1e9:,.2f} · 10⁹ operations a token, {self.tokens:,} tokens a step",
            "matrix rate": f"{self.rate / 1e12:,.2f} · 10¹² operations a second",
            "a step": f"{step:,.2f} s at that rate, {step / USUAL_SHARE:,.2f} s at {USUAL_SHARE:.0%} of it",
            "all steps": f"{self.steps:,}: {_clock(self.steps * step)} to {_clock(self.steps * step / USUAL_SHARE)}",
        }


def plan(
    settings: TrainConfig, *, rows: int, text_tokens: int = 64, prompt_tokens: int = 8, answer_tokens: int = 4,
    rate: float | None = None,
) -> Plan:  # fmt: skip
    """Memory, arithmetic and time of a training run.

    Args:
        settings: base models, fusion, mapper, batch size, epochs, device, dtype, gradient checkpointing.
        rows: of the training data.
        text_tokens: the encoder's, of a text.
        prompt_tokens, answer_tokens: the LLM's, around the text and of the answer with its EOS.
        rate: operations a second of the device's matrix multiplication; None measures it.

    Raises:
        PalamError: base models that cannot be found or used.
    """
    device, dtype, attention = resolve_placement(settings.device, settings.dtype).values()
    batch, keep = settings.batch_size, answer_tokens + 1
    for base in (settings.encoder, settings.llm):
        resolve(base)  # a starter model is converted with real tensors
    with FakeTensorMode():
        encoder, llm = _bases(settings, dtype, attention)
        ids = torch.ones(batch, text_tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as encoding, torch.no_grad():
            found = encoder(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            )
        states = found.hidden_states[1:]
        bridge = _bridge(
            settings, states[0].shape[-1], len(states), llm.get_input_embeddings().weight.shape[-1]
        )
        saved: dict[int, Tensor] = {}
        weights = {id(parameter) for model in (llm, bridge) for parameter in model.parameters()}

        def keep_alive(tensor: Tensor) -> Tensor:
            if id(tensor) not in weights and id(tensor._base) not in weights:
                saved[id(tensor)] = tensor
            return tensor

        with FlopCounterMode(display=False) as reading:
            with torch.autograd.graph.saved_tensors_hooks(keep_alive, lambda tensor: tensor):
                mapped, _ = bridge([state.reshape(-1, state.shape[-1]) for state in states])
                rest = llm.get_input_embeddings()(
                    ids.new_ones(batch, prompt_tokens + answer_tokens + 1)
                )
                sequence = torch.cat(
                    [mapped.reshape(batch, text_tokens, -1).to(rest.dtype), rest], 1
                )
                total = sequence.shape[1]
                wanted = torch.arange(total - keep, total)
                logits = llm(inputs_embeds=sequence, use_cache=False, logits_to_keep=wanted).logits[
                    :, -keep:
                ]
            logits.float().sum().backward()
    trained = sum(parameter.numel() for parameter in bridge.parameters())
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for tensor in saved.values()
    }
    return Plan(
        trained,
        {
            "encoder": _bytes(encoder.parameters()),
            "LLM": _bytes(llm.parameters()),
            "bridge": 4 * trained * 4,  # fp32: weights, gradients, AdamW's two moments
            "encoder states": _bytes(states),
            "activations": sum(storages.values()),
            "logits": logits.numel()
            * (dtype.itemsize + 3 * 4),  # fp32 copy, its log-softmax, the gradient
        },
        {"encoder": encoding.get_total_flops(), "LLM and bridge": reading.get_total_flops()},
        batch * (text_tokens + total),
        math.ceil(math.ceil(rows / batch) * settings.epochs),
        rate or 2 * 2048**3 / statistics.median(matmul_seconds(device, dtype)),
    )


def _bases(settings: TrainConfig, dtype: torch.dtype, attention: str | None) -> tuple[Any, Any]:
    """Both base models without weights."""
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    with readable_errors(settings.encoder, "encoder", "cannot be planned with"):
        kind: Any
        kind, config, _ = encoder_part(
            load_config(settings.encoder, "encoder", settings.encoder_revision)[1]
        )
        pooler = (
            {"add_pooling_layer": False}
            if "add_pooling_layer" in signature(kind.__init__).parameters
            else {}
        )
        encoder = freeze(kind._from_config(config, **options, **pooler))
    with readable_errors(settings.llm, "LLM", "cannot be planned with"):
        causal: Any = AutoModelForCausalLM
        _, config = load_config(settings.llm, "LLM", settings.llm_revision)
        llm = freeze(causal.from_config(config, trust_remote_code=False, **options))
    if settings.gradient_checkpointing:
        enable_checkpointing(llm)
    return encoder, llm


def _bridge(settings: TrainConfig, width: int, layers: int, llm_width: int) -> PalamBridge:
    options: dict[str, Any] = {"normalize": settings.normalize} | (
        {"rank": settings.rank} if settings.rank else {}
    )
    config = PalamConfig(
        encoder_hidden_size=width, encoder_num_layers=layers, llm_hidden_size=llm_width
    )
    config.fusion, config.mapper = settings.fusion, settings.mapper
    config.fusion_options, config.mapper_options = split_options(
        settings.fusion, settings.mapper, options
    )
    return PalamBridge(config)


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(seconds, 60) / 60:.0f} min"


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
