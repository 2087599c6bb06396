"""What a bridge is: its bases, its shapes, its fusion and mapper. Saved as `config.json`."""

import math
from dataclasses import field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from palam.errors import PalamError
from palam.models.model_config import ModelConfig
from palam.models.task_record import TaskRecord
from palam.utils.texts import shown

RENAMED = {"direct": "llm_only"}
RENAMED_FUSION_OPTIONS = {"faithful": "paper_temperature"}
"""Names in files of before 0.1.0, and what they are called now."""
MAX_SIZE = 1_000_000
"""Of widths and numbers of layers."""


class PalamConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a [`PalamBridge`].

    Args:
        encoder, llm: hub id or folder of each frozen base model.
        encoder_revision, llm_revision: revision of each on the hub, or None.
        encoder_hidden_size: width d_enc of the encoder's states.
        encoder_num_layers: number L of states that are fused (the embedding layer is not one).
        llm_hidden_size: width d_llm of the LLM's input embeddings.
        second_encoder, second_encoder_revision: of a second encoder; None without one.
        second_encoder_hidden_size, second_encoder_num_layers: its shape; 0 without one.
        fusion, fusion_options: name of a registered fusion, and keyword arguments of it; among them
            always `normalize`.
        mapper, mapper_options: name of a registered mapper, and keyword arguments of it.
        embedding_rms: root mean square of the LLM's input embeddings; the mapper's output starts
            there.
        fingerprints: what the bridge was trained with, `{"encoder": {...}, "llm": {...}}`.
        adapter: whether a LoRA adapter of the LLM lies beside the bridge.
        llm_only: the LLM reads texts itself: of a LoRA that was trained so, as a baseline; the
            bridge is not used.
        task: what it was trained for, as [`TaskRecord.to_dict`] has it, or None; see
            `trained_task`.
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
    second_encoder: str | None = None
    second_encoder_revision: str | None = None
    second_encoder_hidden_size: int = 0
    second_encoder_num_layers: int = 0
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
        _check_types(self)
        # Bridges that were saved without it are of the time when this was the fusions' default.
        self.fusion_options = {"normalize": "none", **self.fusion_options}
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def bases(self) -> dict[str, str]:
        """The names of the base models: `encoder`, `second_encoder` if there is one, `llm`."""
        names = {"encoder": self.encoder}
        if self.second_encoder is not None:
            names["second_encoder"] = self.second_encoder
        return {**names, "llm": self.llm}

    @property
    def trained_task(self) -> TaskRecord | None:
        """What it was trained for; None of a bridge of raw text."""
        return None if self.task is None else TaskRecord.from_dict(self.task)

    @property
    def layer_widths(self) -> list[int]:
        """The width of each layer's states, of the first encoder and of the second."""
        first = [self.encoder_hidden_size] * self.encoder_num_layers
        second = [self.second_encoder_hidden_size] * self.second_encoder_num_layers
        return [*first, *second]

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


def _check_types(config: PalamConfig) -> None:
    """Refuse fields of other types than they are declared with: a file may be anyone's.

    Raises:
        PalamError: one is; the message names it.
    """
    for name in ("fusion_options", "mapper_options", "fingerprints", "label_priors"):
        if not isinstance(getattr(config, name), dict):
            raise PalamError(f"{name} is {shown(getattr(config, name))}, not a mapping")
    for name in ("encoder", "llm", "fusion", "mapper"):
        if not isinstance(getattr(config, name), str):
            raise PalamError(f"{name} is {shown(getattr(config, name))}, not a text")
    _check_sizes(config)
    for name in (
        "encoder_revision",
        "llm_revision",
        "second_encoder",
        "second_encoder_revision",
    ):
        if not isinstance(getattr(config, name), str | None):
            raise PalamError(f"{name} is {shown(getattr(config, name))}, not a text")
    _check_numbers(config)
    _check_fingerprints(config.fingerprints)
    if config.task is not None:
        TaskRecord.from_dict(config.task)


def _check_sizes(config: PalamConfig) -> None:
    """Refuse a width or a number of layers that is none; without a second encoder its are 0."""
    sizes = ["encoder_hidden_size", "encoder_num_layers", "llm_hidden_size"]
    second_sizes = ["second_encoder_hidden_size", "second_encoder_num_layers"]
    if config.second_encoder is not None:
        sizes += second_sizes
    elif any(getattr(config, name) != 0 for name in second_sizes):
        raise PalamError("it has sizes of a second encoder, and names none")
    for name in sizes:
        size = getattr(config, name)
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise PalamError(f"{name} is {shown(size)}, not a number from 1 to {MAX_SIZE:,}")


def _check_numbers(config: PalamConfig) -> None:
    """Refuse a scale or a prior that is no finite number."""
    numbers = {"embedding_rms": config.embedding_rms}
    for label, prior in config.label_priors.items():
        numbers[f"label_priors of {label[:40]!r}"] = prior
    for name, number in numbers.items():
        if type(number) not in (int, float) or not math.isfinite(number):
            raise PalamError(f"{name} is {shown(number)}, not a finite number")


def _check_fingerprints(fingerprints: dict[str, Any]) -> None:
    """Refuse what is no fingerprint, or one that lacks a part."""
    for part, recorded in fingerprints.items():
        complete = isinstance(recorded, dict) and {"vocabulary", "embeddings"} <= recorded.keys()
        if recorded and not (complete and isinstance(recorded.get("shapes"), dict)):
            raise PalamError(f"the fingerprint of the {part[:40]} is damaged")


AutoConfig.register("palam", PalamConfig, exist_ok=True)
