"""What a bridge is: its bases, its shapes, its fusion and mapper. Saved as `config.json`."""

from dataclasses import field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from palam.models.model_config import ModelConfig

RENAMED = {"direct": "llm_only"}
RENAMED_FUSION_OPTIONS = {"faithful": "paper_temperature"}
"""Names in files of before 0.1.0, and what they are called now."""


class PalamConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a [`PalamBridge`].

    Args:
        encoder, llm: hub id or folder of each frozen base model.
        encoder_revision, llm_revision: revision of each on the hub, or None.
        encoder_hidden_size: width d_enc of the encoder's states.
        encoder_num_layers: number L of states that are fused (the embedding layer is not one).
        llm_hidden_size: width d_llm of the LLM's input embeddings.
        fusion, fusion_options: name of a registered fusion, and keyword arguments of it; among them
            always `normalize`.
        mapper, mapper_options: name of a registered mapper, and keyword arguments of it.
        embedding_rms: root mean square of the LLM's input embeddings; the mapper's output starts
            there.
        fingerprints: what the bridge was trained with, `{"encoder": {...}, "llm": {...}}`.
        adapter: whether a LoRA adapter of the LLM lies beside the bridge.
        llm_only: the LLM reads texts itself: of a LoRA that was trained so, as a baseline; the
            bridge is not used.
        task: what it was trained for, or None: `{"name", "family", "text": how fields become the
            encoder's text, "labels": [[data label, answer words], ...]}`.
        label_priors: what each label's words score on average over English texts, if that was
            measured; it is subtracted in classification (see [`measure_priors`]).
    """

    model_type = "palam"

    encoder: str = ""
    llm: str = ""
    encoder_revision: str | None = None
    llm_revision: str | None = None
    encoder_hidden_size: int = 384
    encoder_num_layers: int = 12
    llm_hidden_size: int = 576
    fusion: str = ModelConfig.fusion
    fusion_options: dict[str, Any] = field(default_factory=dict)
    mapper: str = ModelConfig.mapper
    mapper_options: dict[str, Any] = field(default_factory=dict)
    embedding_rms: float = 1.0
    fingerprints: dict[str, Any] = field(default_factory=dict)
    adapter: bool = False
    llm_only: bool = False
    task: dict[str, Any] | None = None
    label_priors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any) -> None:
        # Bridges that were saved without it are of the time when this was the fusions' default.
        self.fusion_options = {"normalize": "none", **self.fusion_options}
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From the content of a `config.json`, of this version or an earlier one."""
        current = {RENAMED.get(name, name): value for name, value in config_dict.items()}
        options = current.get("fusion_options")
        if isinstance(options, dict):
            current["fusion_options"] = {
                RENAMED_FUSION_OPTIONS.get(name, name): value for name, value in options.items()
            }
        return super().from_dict(current, **kwargs)


AutoConfig.register("palam", PalamConfig, exist_ok=True)
