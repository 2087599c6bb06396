"""Several bridges over base models that are loaded once."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from palam.models.bases import BaseName, LoadedEncoder
from palam.models.checkpoint import load_bridge
from palam.models.modeling import PalamModel
from palam.utils.device import Placement


def load_models(
    paths: Sequence[str],
    placement: Placement,
    *,
    encoder: str | None = None,
    llm: str | None = None,
    second_encoder: str | None = None,
    allow_mismatch: bool = False,
) -> list[PalamModel]:
    """Load checkpoints, in evaluation mode; those that name the same base models share them.

    An LLM that a LoRA changes is not shared.

    Args:
        paths: checkpoint folders or hub ids.
        placement: of the base models.
        encoder, llm, second_encoder, allow_mismatch: see [`PalamModel.from_pretrained`].

    Raises:
        PalamError: a checkpoint that cannot be loaded.
    """
    encoders: dict[tuple[BaseName, BaseName | None], LoadedEncoder] = {}
    llms: dict[BaseName, PreTrainedModel] = {}
    models = []
    for path in paths:
        config = load_bridge(path).config
        second_name = None
        if config.second_encoder is not None:
            second_name = _base_name(
                second_encoder, config.second_encoder, config.second_encoder_revision
            )
        encoder_name = _base_name(encoder, config.encoder, config.encoder_revision), second_name
        llm_name = _base_name(llm, config.llm, config.llm_revision)
        model = PalamModel.from_pretrained(
            path,
            encoders.get(encoder_name, encoder),
            llm if config.adapter else llms.get(llm_name, llm),
            second_encoder=second_encoder,
            allow_mismatch=allow_mismatch,
            **placement,
        )
        encoders[encoder_name] = model.encoder
        if not config.adapter:
            llms[llm_name] = model.llm
        models.append(model)
    return models


def _base_name(given: str | None, name: str, revision: str | None) -> BaseName:
    """The base model that a bridge is loaded with.

    Args:
        given: in place of what the bridge says.
        name, revision: what the bridge says.
    """
    return BaseName(name, revision) if given is None else BaseName(given, None)
