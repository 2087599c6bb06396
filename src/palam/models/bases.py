"""The two frozen base models of a bridge: loaded, and checked to be those it was trained with."""

from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from palam.errors import PalamError
from palam.models.backbones.encoder import encoder_shape, load_encoder
from palam.models.backbones.encoder_pair import EncoderPair, encoders_of
from palam.models.backbones.llm import check_llm, load_llm
from palam.models.configuration import PalamConfig
from palam.models.fingerprint import ROLES, check_fingerprint, fingerprint
from palam.models.model_config import ModelConfig
from palam.models.processing import PalamProcessor
from palam.utils.device import Placement

LoadedEncoder = PreTrainedModel | EncoderPair
"""One encoder, or two that read the same text."""


class Bases(NamedTuple):
    """Loaded base models."""

    encoder: LoadedEncoder
    llm: PreTrainedModel

    @property
    def llm_hidden_size(self) -> int:
        """Width d_llm of the LLM's input embeddings."""
        embeddings: Any = self.llm.get_input_embeddings()
        return int(embeddings.weight.shape[-1])

    @property
    def bridge_device(self) -> torch.device:
        """Where the LLM's input embeddings are, beside which the bridge stands."""
        embeddings: Any = self.llm.get_input_embeddings()
        device: torch.device = embeddings.weight.device
        return device


class BaseName(NamedTuple):
    """A base model that is still to be loaded."""

    name: str
    """Hub id, folder, `starter:encoder` or `starter:llm`."""
    revision: str | None
    """On the hub; None is its main branch."""


class PairName(NamedTuple):
    """Two encoders that are still to be loaded."""

    first: BaseName
    second: BaseName


def locate_encoder(
    encoder: str | LoadedEncoder | None, second: str | None, config: ModelConfig | PalamConfig
) -> LoadedEncoder | BaseName | PairName:
    """Which encoder to take, or which two.

    Args:
        encoder: loaded (a pair of them, if there are two), or where it is; None is as configured.
        second: where the second one is; None is as configured.
        config: names them.

    Raises:
        PalamError: a second one is given that is not configured, or a loaded encoder is not as
            many as are configured.
    """
    if config.second_encoder is None:
        if second is not None:
            raise PalamError("this bridge has one encoder; give no second one")
        if isinstance(encoder, EncoderPair):
            raise PalamError("this bridge has one encoder, and two are given")
        return locate(encoder, config.encoder, config.encoder_revision)
    if isinstance(encoder, EncoderPair):
        return encoder
    if isinstance(encoder, PreTrainedModel):
        raise PalamError("this bridge has two encoders, and one is given: give an EncoderPair")
    first_name = locate(encoder, config.encoder, config.encoder_revision)
    second_name = locate(second, config.second_encoder, config.second_encoder_revision)
    assert isinstance(first_name, BaseName)
    assert isinstance(second_name, BaseName)
    return PairName(first_name, second_name)


def locate(
    base: str | PreTrainedModel | None, name: str, revision: str | None
) -> PreTrainedModel | BaseName:
    """Which base model to take.

    Args:
        base: a loaded model, or where it is; None is as configured.
        name, revision: what is configured.
    """
    if base is None:
        return BaseName(name, revision)
    if isinstance(base, str):
        return BaseName(base, None)
    return base


def load_bases(
    encoder: LoadedEncoder | BaseName | PairName,
    llm: PreTrainedModel | BaseName,
    placement: Placement,
) -> Bases:
    """Load the base models that are not loaded yet, and check the LLM.

    Args:
        encoder, llm: loaded models, or which to load.
        placement: of what is loaded; the encoder is always on one device.

    Raises:
        PalamError: a model that cannot be loaded or used.
    """
    one_device: dict[str, Any] = {**placement}
    one_device.pop("device_map", None)
    if isinstance(encoder, PairName):
        first, second = (
            load_encoder(name, revision=revision, **one_device) for name, revision in encoder
        )
        encoder = EncoderPair(first, second)
    elif isinstance(encoder, BaseName):
        encoder = load_encoder(encoder.name, revision=encoder.revision, **one_device)
    if isinstance(llm, BaseName):
        llm = load_llm(llm.name, revision=llm.revision, **placement)
    check_llm(llm)
    return Bases(encoder, llm)


def fingerprints(bases: Bases, processor: PalamProcessor) -> dict[str, Any]:
    """The base models' fingerprints by part, as [`PalamConfig`] records them."""
    first, *others = encoders_of(bases.encoder)
    found = {
        "encoder": fingerprint(first, processor.encoder_tokenizer),
        "llm": fingerprint(bases.llm, processor.llm_tokenizer),
    }
    for second in others:
        found["second_encoder"] = fingerprint(second, processor.second_tokenizer)
    return found


def check_fingerprints(
    config: PalamConfig, bases: Bases, processor: PalamProcessor
) -> dict[str, Any]:
    """Refuse base models that are not those the bridge was trained with.

    Returns:
        Their fingerprints, see [`fingerprints`].

    Raises:
        PalamError: one of them is another.
    """
    actual = fingerprints(bases, processor)
    hint = "; give the right one, or --allow-mismatch to use it all the same"
    first, *others = encoders_of(bases.encoder)
    models = dict(zip(actual, (first, bases.llm, *others), strict=True))
    for part, model in models.items():
        expected = config.fingerprints.get(part)
        check_fingerprint(ROLES[part], expected, actual[part], str(model.name_or_path), hint)
    return actual


def check_shapes(config: PalamConfig, bases: Bases) -> None:
    """Refuse base models whose shapes do not fit the bridge.

    Raises:
        PalamError: an encoder of another width or number of layers, or an LLM of another width.
    """
    first, *others = encoders_of(bases.encoder)
    actual = (*encoder_shape(first), bases.llm_hidden_size)
    needed = (config.encoder_hidden_size, config.encoder_num_layers, config.llm_hidden_size)
    if actual != needed:
        raise PalamError(
            f"the base models' encoder width, layers and LLM width are {actual}; "
            f"this bridge needs {needed}"
        )
    for second in others:
        actual_second = tuple(encoder_shape(second))
        needed_second = (config.second_encoder_hidden_size, config.second_encoder_num_layers)
        if actual_second != needed_second:
            raise PalamError(
                f"the second encoder's width and layers are {actual_second}; "
                f"this bridge needs {needed_second}"
            )
