"""What makes results what they are: the model and how it is asked, by names for messages."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel

Identity = Mapping[str, Any]
"""What makes results what they are, by name; the values are those of JSON."""
PROCESSOR_SETTINGS = ("max_length", "llm_only_max_length", "append_source_tokens", "tokenization")


def model_identity(model: "PalamModel") -> dict[str, Any]:
    """The identity of a model; the values are those of JSON.

    Args:
        model: with the template that is used.
    """
    from palam.models.template import SLOT

    processor = model.processor
    settings = {name: getattr(processor, name) for name in PROCESSOR_SETTINGS}
    template = processor.template
    return {
        "mode": template.mode,
        "prompt": f"{template.prefix}{SLOT}{template.suffix}",
        "answer's end": template.answer_end,
        "dtype": _dtype(model),
        "engine": None if model.token_engine is None else type(model.token_engine).__name__,
        "quantisation": _quantisation(model),
        "bridge": _bridge_digest(model),
        **_base_digests(model),
        "tokenisation": settings,
    }


def identity_together(models: "Sequence[PalamModel]") -> dict[str, Any]:
    """The identity of models that answer together, in which their order does not count.

    Args:
        models: with the templates that are used.
    """
    from palam.training.checksums import values_sha256

    identities = [model_identity(model) for model in models]
    identities.sort(key=json.dumps)
    together = {}
    for name, first in identities[0].items():
        values = [identity[name] for identity in identities]
        if all(value == first for value in values):
            together[name] = first
        elif is_digest(first):
            together[name] = digest_value(values_sha256(values))
        else:
            together[name] = values
    together["bridge"] = digest_value(values_sha256([each["bridge"] for each in identities]))
    return together


def digest_value(sha256: str) -> dict[str, str]:
    """A value of an identity that only a digest stands for."""
    return {"sha256": sha256}


def is_digest(value: Any) -> bool:
    """Whether only a digest stands for a value."""
    return isinstance(value, dict) and value.keys() == {"sha256"}


def identity_change(earlier: Identity, now: Identity) -> str | None:
    """In what two identities differ: all names, the first with its values; None if in nothing."""
    now = json.loads(json.dumps(now))
    differing = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    if not differing:
        return None
    name, *others = differing
    also = f" (also changed: {', '.join(others)})" if others else ""
    return _change(name, earlier.get(name), now.get(name)) + also


def _change(name: str, earlier: Any, now: Any) -> str:
    if is_digest(earlier) or is_digest(now):
        return f"the {name} is another one"
    return f"the {name} was {_shown(earlier)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, str):
        text = value if value.isalnum() else json.dumps(value, ensure_ascii=False)
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _dtype(model: "PalamModel") -> str:
    from palam.utils.device import DTYPES, dtype_name

    dtype = model.llm.dtype
    return dtype_name(dtype) if dtype in DTYPES.values() else str(dtype)


def _quantisation(model: "PalamModel") -> Any:
    config = getattr(model.llm.config, "quantization_config", None)
    if config is None:
        return None
    content = config if isinstance(config, dict) else config.to_dict()
    return json.loads(json.dumps(content, default=str))


def _bridge_digest(model: "PalamModel") -> dict[str, str]:
    """Of weights and configuration, a LoRA's too."""
    from palam.models.checkpoint import DESIGN
    from palam.training.checksums import tensors_sha256, values_sha256

    config = model.config
    weights = dict(model.bridge.state_dict())
    if config.adapter:
        for name, parameter in model.llm.named_parameters():
            if "lora_" in name:
                weights[f"adapter {name}"] = parameter
    design = [getattr(config, name) for name in (*DESIGN, "label_priors", "llm_only", "adapter")]
    return digest_value(values_sha256([tensors_sha256(weights), design]))


def _base_digests(model: "PalamModel") -> dict[str, Any]:
    from palam.models.backbones.adapters import without_adapter
    from palam.models.bases import Bases, fingerprints
    from palam.models.fingerprint import ROLES
    from palam.training.checksums import values_sha256

    recorded_by_part = model.base_fingerprints
    if recorded_by_part is None:
        bases = Bases(model.encoder, without_adapter(model.llm))
        recorded_by_part = fingerprints(bases, model.processor)
    digests = {}
    for part, recorded in recorded_by_part.items():
        values = [recorded[name] for name in ("shapes", "vocabulary", "embeddings")]
        digests[ROLES[part]] = digest_value(values_sha256(values))
    return digests
