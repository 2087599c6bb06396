"""Models without weights, on fake tensors, which have shapes and no data.

Their own code runs on them: what it computes and keeps is counted.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from palam.models.backbones.adapters import target_names
from palam.models.backbones.encoder import encoder_without_weights
from palam.models.backbones.loading import freeze, load_config, readable_errors
from palam.models.bridge import PalamBridge
from palam.models.configuration import PalamConfig
from palam.models.model_config import ModelConfig

FAULT = "cannot be planned with"


def sketch_encoders(
    model: ModelConfig, dtype: torch.dtype, attention: str | None
) -> list[PreTrainedModel]:
    """The encoder without weights, or both."""
    names = [(model.encoder, model.encoder_revision)]
    if model.second_encoder is not None:
        names.append((model.second_encoder, model.second_encoder_revision))
    return [sketch_encoder(name, revision, dtype, attention) for name, revision in names]


def sketch_encoder(
    name: str, revision: str | None, dtype: torch.dtype, attention: str | None
) -> Any:
    """An encoder without weights."""
    located = load_config(name, "encoder", revision)
    with readable_errors(name, "encoder", FAULT):
        return encoder_without_weights(located.config, dtype=dtype, attn_implementation=attention)


def sketch_llm(model: ModelConfig, dtype: torch.dtype, attention: str | None) -> Any:
    """The LLM without weights."""
    causal_lm: Any = AutoModelForCausalLM
    located = load_config(model.llm, "LLM", model.llm_revision)
    with readable_errors(model.llm, "LLM", FAULT):
        llm = causal_lm.from_config(
            located.config, trust_remote_code=False, dtype=dtype, attn_implementation=attention
        )
        return freeze(llm)


def sketch_translator(name: str, dtype: torch.dtype) -> Any:
    """A translation model without weights."""
    translation_model: Any = AutoModelForSeq2SeqLM
    located = load_config(name, "translator", None)
    with readable_errors(name, "translator", FAULT):
        translator = translation_model.from_config(
            located.config, trust_remote_code=False, dtype=dtype
        )
        return freeze(translator)


def sketch_bridge(model: ModelConfig, states: Sequence[Sequence[Tensor]], llm: Any) -> PalamBridge:
    """The bridge without weights.

    Args:
        model: its settings.
        states: of each encoder, one tensor [..., d_enc] per layer.
        llm: without weights.
    """
    first, *others = states
    second: dict[str, Any] = {}
    for layers in others:
        second = {
            "second_encoder": model.second_encoder,
            "second_encoder_hidden_size": layers[0].shape[-1],
            "second_encoder_num_layers": len(layers),
        }
    config = PalamConfig(
        **second,
        encoder_hidden_size=first[0].shape[-1],
        encoder_num_layers=len(first),
        llm_hidden_size=llm.get_input_embeddings().weight.shape[-1],
        fusion=model.fusion,
        fusion_options=model.all_fusion_options,
        mapper=model.mapper,
        mapper_options=model.mapper_options,
    )
    return PalamBridge(config)


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


def add_low_rank(llm: Any, rank: int) -> None:
    """Put a LoRA on the linear layers that a training run puts one on."""
    for name in target_names(llm, "all-linear"):
        parent_name, _, attribute = name.rpartition(".")
        parent = llm.get_submodule(parent_name)
        setattr(parent, attribute, _LowRank(getattr(parent, attribute), rank))


class SavedTensors:
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


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def trained_parameters(module: nn.Module) -> int:
    """How many numbers of a module are trained."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def size_in_bytes(tensors: Iterable[Tensor]) -> int:
    """Of all of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
