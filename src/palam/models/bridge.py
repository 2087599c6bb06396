"""The bridge: fusion, mapper and boundary. All that is trained, all that a checkpoint holds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from palam.models.configuration import PalamConfig
from palam.models.fusion.base import Fusion
from palam.models.registry import FUSIONS, MAPPERS


class PalamBridge(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Fusion + mapper + boundary: from the encoder's states to the LLM's embedding space.

    Attributes:
        fusion: a [`Fusion`].
        second_fusion: the same for the layers of a second encoder; None without one.
        fused_size: width of what the mapper reads.
        mapper: a [`LinearMapper`], or one that extends it.
        boundary: the learned vector [d_llm] that follows each text.

    Raises:
        PalamError: a configuration whose fusion or mapper is not known.
    """

    config: PalamConfig
    config_class = PalamConfig
    base_model_prefix = "bridge"
    main_input_name = "states"

    def __init__(self, config: PalamConfig) -> None:
        super().__init__(config)
        fusion_class = FUSIONS.lookup(config.fusion)
        mapper_class = MAPPERS.lookup(config.mapper)
        self.fusion = fusion_class(
            config.encoder_hidden_size,
            config.encoder_num_layers,
            **config.fusion_options,
        )
        self.second_fusion: Fusion | None = None
        self.fused_size = self.fusion.output_size
        if config.second_encoder is not None:
            self.second_fusion = fusion_class(
                config.second_encoder_hidden_size,
                config.second_encoder_num_layers,
                **config.fusion_options,
            )
            self.fused_size += self.second_fusion.output_size
        self.mapper = mapper_class(
            self.fused_size,
            config.llm_hidden_size,
            **config.mapper_options,
        )
        self.boundary = nn.Parameter(torch.randn(config.llm_hidden_size) * config.embedding_rms)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        # Each part has initialised itself; the library's N(0, 0.02) would overwrite it.
        pass

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse and map.

        Args:
            states: L tensors [..., d_enc]: `hidden_states[1:]` of the encoder, or only its real
                tokens; then those of the second encoder, if there is one.

        Returns:
            Vectors [..., d_llm] in the LLM's embedding space, and the layer weights [..., L] or
            None.
        """
        with self.precision(states[0].dtype):
            fused, weights = self.fuse(states)
            return self.mapper(fused), weights

    def fuse(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse each encoder's layers, and put the results side by side.

        Args:
            states: as in `forward`.

        Returns:
            What the mapper reads [..., d], and the layer weights [..., L] or None. Of two encoders,
            the weights of each sum to 1.
        """
        fused, weights = zip(*(fusion(own) for fusion, own in self.fusions(states)), strict=True)
        if self.second_fusion is None:
            return fused[0], weights[0]
        side_by_side = torch.cat(fused, -1)
        if weights[0] is None:
            return side_by_side, None
        return side_by_side, torch.cat(weights, -1)

    def fusions(self, states: Sequence[Tensor]) -> list[tuple[Fusion, Sequence[Tensor]]]:
        """Each encoder's fusion, with the states that it fuses.

        Args:
            states: as in `forward`.
        """
        if self.second_fusion is None:
            return [(self.fusion, states)]
        first = self.config.encoder_num_layers
        return [(self.fusion, states[:first]), (self.second_fusion, states[first:])]

    def fusion_weights(self) -> list[nn.Parameter]:
        """The weights of the fusions, if they have any."""
        weights = list(self.fusion.parameters())
        if self.second_fusion is not None:
            weights += self.second_fusion.parameters()
        return weights

    def precision(self, dtype: torch.dtype) -> torch.autocast:
        """The bridge's own weights stay in fp32 for the optimiser; its matmuls follow `dtype`.

        Args:
            dtype: of the base models.
        """
        enabled = dtype != torch.float32
        return torch.autocast(self.boundary.device.type, dtype=dtype, enabled=enabled)


AutoModel.register(PalamConfig, PalamBridge, exist_ok=True)
