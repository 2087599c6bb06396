"""What makes a run over rows what it is: all that its results depend on, but for the rows."""

import json
from typing import TYPE_CHECKING, Any

from palam.cli._journal import digest_value
from palam.cli._source import SourceConfig, TextForm

if TYPE_CHECKING:
    from palam.models.modeling import PalamModel

PROCESSOR_SETTINGS = ("max_length", "llm_only_max_length", "append_source_tokens", "tokenization")


def run_identity(
    model: "PalamModel", source: SourceConfig, form: TextForm, options: dict[str, Any]
) -> dict[str, Any]:
    """The identity of a run, by names that a message can use; the values are those of JSON.

    Args:
        model: with the template that this run uses.
        source: the options of the texts.
        form: how a row becomes a text.
        options: the command's own.
    """
    from palam.models.template import SLOT

    processor = model.processor
    settings = {name: getattr(processor, name) for name in PROCESSOR_SETTINGS}
    template = processor.template
    return {
        **options,
        "language": source.language,
        "language column": source.language_column,
        "text": form.template,
        "column": list(form.columns.values()),
        "format": source.file_format,
        "sheet": source.sheet,
        "mode": template.mode,
        "prompt": f"{template.prefix}{SLOT}{template.suffix}",
        "answer's end": template.answer_end,
        "dtype": _dtype(model),
        "quantisation": _quantisation(model),
        "bridge": _bridge_digest(model),
        **_base_digests(model),
        "tokenisation": settings,
    }


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
    from palam.training.checksums import values_sha256

    recorded_by_part = model.base_fingerprints
    if recorded_by_part is None:
        bases = Bases(model.encoder, without_adapter(model.llm))
        recorded_by_part = fingerprints(bases, model.processor)
    digests = {}
    for part, recorded in recorded_by_part.items():
        values = [recorded[name] for name in ("shapes", "vocabulary", "embeddings")]
        digests["LLM" if part == "llm" else part] = digest_value(values_sha256(values))
    return digests
