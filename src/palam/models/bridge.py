"""The bridge: fusion, mapper and boundary. All that is trained, all that a checkpoint holds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from palam.models.configuration import PalamConfig
from palam.models.registry import FUSIONS, MAPPERS


class PalamBridge(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Fusion + mapper + boundary: from the encoder's states to the LLM's embedding space.

    Attributes:
        fusion: a [`Fusion`].
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
        self.mapper = mapper_class(
            self.fusion.output_size,
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
                tokens.

        Returns:
            Vectors [..., d_llm] in the LLM's embedding space, and the layer weights [..., L] or
            None.
        """
        with self.precision(states[0].dtype):
            fused, weights = self.fusion(states)
            return self.mapper(fused), weights

    def precision(self, dtype: torch.dtype) -> torch.autocast:
        """The bridge's own weights stay in fp32 for the optimiser; its matmuls follow `dtype`.

        Args:
            dtype: of the base models.
        """
        enabled = dtype != torch.float32
        return torch.autocast(self.boundary.device.type, dtype=dtype, enabled=enabled)


AutoModel.register(PalamConfig, PalamBridge, exist_ok=True)
