"""The bridge: fusion, mapper and boundary. It is all that is trained and all that a checkpoint holds."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from palam.configuration import PalamConfig, lookup
from palam.encoder import load_config, readable_errors
from palam.errors import PalamError
from palam.fingerprint import check
from palam.fusion import FUSIONS
from palam.mapper import MAPPERS


class PalamBridge(PreTrainedModel):  # type: ignore[no-untyped-call]
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
        self.post_init()  # type: ignore[no-untyped-call]

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
        with self.precision(states[0].dtype):
            fused, weights = self.fusion(states)
            return self.mapper(fused), weights

    def precision(self, dtype: torch.dtype) -> torch.autocast:
        """The bridge's own weights stay in fp32 for the optimiser; its matmuls follow the base models' `dtype`."""
        return torch.autocast(self.boundary.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def take_over(self, path: str | os.PathLike[str]) -> None:
        """Take a checkpoint's weights, to go on from them.

        Raises:
            PalamError: no bridge there, or one of another kind or between other base models.
        """
        other = load_bridge(path)
        if other.config.adapter:
            raise PalamError(f"{path} has a LoRA, without which its bridge is of no use")
        sizes = ("encoder_hidden_size", "encoder_num_layers", "llm_hidden_size")
        for name in ("fusion", "fusion_options", "mapper", "mapper_options", *sizes):
            was, now = getattr(other.config, name), getattr(self.config, name)
            if was != now:
                raise PalamError(f"{path} has {name.replace('_', ' ')} {was}, this run {now}; they must be the same")
        for part in ("encoder", "LLM"):
            was, now = (one.config.fingerprints.get(part.lower()) for one in (other, self))
            check(part, was, now, getattr(self.config, part.lower()))
        self.load_state_dict(other.state_dict())


def load_bridge(path: str | os.PathLike[str], revision: str | None = None) -> PalamBridge:
    """A checkpoint's bridge, in fp32 on the CPU.

    Raises:
        PalamError: no bridge there, or one whose weights do not fit its configuration.
    """
    name, config = load_config(str(path), "checkpoint", revision)
    if not isinstance(config, PalamConfig):
        raise PalamError(f"{name} holds a {config.model_type} model, not a Palam checkpoint")
    options: dict[str, Any] = {"config": config, "revision": revision or "main", "dtype": torch.float32}
    options |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    load: Any = PalamBridge.from_pretrained
    with readable_errors(name, "checkpoint"):
        bridge, info = load(name, **options)
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *(key for key, *_ in info["mismatched_keys"])]
        if wrong:
            raise PalamError(f"the weight {min(wrong)} is missing or does not fit its configuration")
    for parameter in bridge.parameters():  # off the mapped file, whose alignment changes the last bits of a matmul
        parameter.data = parameter.data.clone()
    return bridge  # type: ignore[no-any-return]
