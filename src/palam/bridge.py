"""The bridge: fusion, mapper and boundary. It is all that is trained and all that a checkpoint holds."""

import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from palam.configuration import PalamConfig
from palam.errors import PalamError
from palam.fusion import FUSIONS
from palam.mapper import MAPPERS


def lookup(kind: str, name: str, registry: dict[str, Any]) -> Any:
    """The registry's entry of that name.

    Raises:
        PalamError: there is none; the message lists those that exist.
    """
    if name not in registry:
        raise PalamError(f"{kind} {name!r} is not known; it must be one of: {', '.join(registry)}")
    return registry[name]


def split_options(fusion: str, mapper: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort keyword options into those of the named fusion and those of the named mapper.

    Raises:
        PalamError: neither takes an option of that name; the message lists those that they take.
    """
    accepted = []
    for kind, name, registry in (("fusion", fusion, FUSIONS), ("mapper", mapper, MAPPERS)):
        parameters = inspect.signature(lookup(kind, name, registry)).parameters.values()
        accepted.append({p.name for p in parameters if p.default is not inspect.Parameter.empty})
    unknown = sorted(set(options) - accepted[0] - accepted[1])
    if unknown:
        known = ", ".join(sorted(accepted[0] | accepted[1])) or "none"
        raise PalamError(f"{unknown[0]!r} is no option of {fusion} and {mapper}; their options are: {known}")
    of_fusion = {key: value for key, value in options.items() if key in accepted[0]}
    return of_fusion, {key: value for key, value in options.items() if key not in accepted[0]}


class PalamBridge(PreTrainedModel):  # type: ignore[misc]
    """Fusion + mapper + boundary: from the encoder's states to vectors in the LLM's embedding space."""

    config_class = PalamConfig
    base_model_prefix = "bridge"
    main_input_name = "states"

    def __init__(self, config: PalamConfig) -> None:
        super().__init__(config)
        fusion = lookup("fusion", config.fusion, FUSIONS)
        mapper = lookup("mapper", config.mapper, MAPPERS)
        self.fusion = fusion(config.encoder_hidden_size, config.encoder_num_layers, **config.fusion_options)
        self.mapper = mapper(self.fusion.output_size, config.llm_hidden_size, **config.mapper_options)
        self.boundary = nn.Parameter(torch.randn(config.llm_hidden_size) * config.embedding_rms)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Each part has initialised itself; the library's N(0, 0.02) would overwrite it.
        pass

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse and map.

        Args:
            states: L tensors [..., d_enc]: `hidden_states[1:]` of the encoder, or only its real tokens.

        Returns:
            Vectors [..., d_llm] in the LLM's embedding space, and the layer weights [..., L] or None.
        """
        # The bridge's own weights stay in fp32 for the optimiser; with half-precision bases the matmuls follow them.
        dtype = states[0].dtype
        with torch.autocast(states[0].device.type, dtype=dtype, enabled=dtype != torch.float32):
            fused, weights = self.fusion(states)
            return self.mapper(fused), weights


def load_bridge(path: str | os.PathLike[str], revision: str | None = None) -> PalamBridge:
    """A checkpoint's bridge, in fp32 on the CPU.

    Raises:
        PalamError: no bridge there, or one whose weights do not fit its configuration.
    """
    try:
        bridge, info = PalamBridge.from_pretrained(
            str(path), revision=revision or "main", output_loading_info=True, use_safetensors=True
        )
    except PalamError:
        raise
    except Exception as error:  # a damaged file raises whatever its reader raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PalamError(f"no Palam checkpoint could be loaded from {path}: {reason}") from None
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise PalamError(f"{path} is no complete Palam checkpoint: {wrong[0]} is missing or does not fit")
    return bridge  # type: ignore[no-any-return]
