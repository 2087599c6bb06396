"""What a bridge is: its bases, its shapes, its fusion and mapper. Saved as `config.json`."""

import inspect
from dataclasses import field
from typing import Any

from transformers import PreTrainedConfig

from palam.errors import PalamError
from palam.fusion import FUSIONS
from palam.mapper import MAPPERS


class PalamConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of a [`PalamBridge`].

    Args:
        encoder, llm: hub id or folder of each frozen base model.
        encoder_revision, llm_revision: revision of each on the hub, or None.
        encoder_hidden_size: width d_enc of the encoder's states.
        encoder_num_layers: number L of states that are fused (the embedding layer is not one of them).
        llm_hidden_size: width d_llm of the LLM's input embeddings.
        fusion, fusion_options: name in `palam.fusion.FUSIONS` and keyword arguments of that fusion.
        mapper, mapper_options: name in `palam.mapper.MAPPERS` and keyword arguments of that mapper.
        embedding_rms: root mean square of the LLM's input embeddings; the mapper's output starts there.
        fingerprints: what the bridge was trained with, `{"encoder": {...}, "llm": {...}}`.
        adapter: whether a LoRA adapter of the LLM lies beside the bridge.
        direct: the LLM reads texts itself: of a LoRA that was trained so, as a baseline; the bridge is not used.
        task: what it was trained for, or None: `{"name", "family", "text": how fields become the encoder's text,
            "labels": [[data label, answer words], ...]}`.
        label_priors: what each label's words score on average over English texts, if that was measured; it is
            subtracted in classification (see `palam.reading.measure_priors`).
    """

    model_type = "palam"

    encoder: str = ""
    llm: str = ""
    encoder_revision: str | None = None
    llm_revision: str | None = None
    encoder_hidden_size: int = 384
    encoder_num_layers: int = 12
    llm_hidden_size: int = 576
    fusion: str = "last"
    fusion_options: dict[str, Any] = field(default_factory=dict)
    mapper: str = "linear"
    mapper_options: dict[str, Any] = field(default_factory=dict)
    embedding_rms: float = 1.0
    fingerprints: dict[str, Any] = field(default_factory=dict)
    adapter: bool = False
    direct: bool = False
    task: dict[str, Any] | None = None
    label_priors: dict[str, float] = field(default_factory=dict)


def lookup(kind: str, name: str, registry: dict[str, Any]) -> Any:
    """The registry's entry of that name; if there is none, a PalamError that lists those that exist."""
    if name not in registry:
        raise PalamError(f"{kind} {name!r} is not known; it must be one of: {', '.join(registry)}")
    return registry[name]


def split_options(fusion: str, mapper: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort options into the fusion's and the mapper's; if neither takes one, a PalamError lists those that exist."""
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
