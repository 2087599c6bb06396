"""A processor for a new bridge, and how long a text may be; neither needs a model's weights."""

from typing import Any

import torch
from transformers import PreTrainedModel

from palam.errors import PalamError
from palam.models.backbones.encoder import encoder_max_length, encoder_without_weights
from palam.models.backbones.encoder_pair import EncoderPair, encoders_of
from palam.models.backbones.loading import load_config, load_tokenizer, readable_errors
from palam.models.model_config import DEFAULT_MAX_LENGTH, ModelConfig
from palam.models.processing import PalamProcessor
from palam.models.template import Template


def longest_text(encoder: PreTrainedModel, tokenizer: Any, max_length: int | None = None) -> int:
    """How many tokens of a text an encoder reads, special tokens included.

    Args:
        encoder: which bounds it by its positions; it may be without weights.
        tokenizer: the encoder's.
        max_length: as it is set; None is `DEFAULT_MAX_LENGTH`, or the encoder's limit where that
            is less.

    Raises:
        PalamError: `max_length` is more than the encoder takes.
    """
    limit = encoder_max_length(encoder, tokenizer)
    if max_length is None:
        return min(DEFAULT_MAX_LENGTH, limit)
    if max_length > limit:
        raise PalamError(
            f"max_length is {max_length}, but the encoder takes at most {limit} tokens"
        )
    return max_length


def longest_text_of(name: str, tokenizer: Any, revision: str | None = None) -> int:
    """The same of an encoder that is not loaded, where nothing is set; see [`longest_text`].

    Args:
        name: hub id, folder, or `starter:encoder`.
        tokenizer: the encoder's.
        revision: on the hub; None is its main branch.

    Raises:
        PalamError: no encoder is there.
    """
    return longest_text(_without_weights(name, revision), tokenizer)


def build_processor(
    config: ModelConfig, encoder: PreTrainedModel | EncoderPair | None = None
) -> PalamProcessor:
    """A processor with the base models' own tokenizers.

    Args:
        config: names the base models, the template and the longest text.
        encoder: the encoder or encoders, whose positions bound the longest text; None finds these
            without their weights.

    Raises:
        PalamError: a tokenizer that cannot be loaded, a template that cannot be built, or a
            `max_length` that is more than the encoder takes.
    """
    if encoder is None:
        encoders = _encoders_without_weights(config)
    else:
        encoders = encoders_of(encoder)
    first, *others = encoders
    encoder_tokenizer = load_tokenizer(config.encoder, config.encoder_revision)
    llm_tokenizer = load_tokenizer(config.llm, config.llm_revision)
    max_length = longest_text(first, encoder_tokenizer, config.max_length)
    second_options: dict[str, Any] = {}
    for second in others:
        second_options = _second_options(config, second, max_length)
    return PalamProcessor(
        encoder_tokenizer,
        llm_tokenizer,
        **second_options,
        encoder=config.encoder,
        encoder_revision=config.encoder_revision,
        llm=config.llm,
        llm_revision=config.llm_revision,
        template=Template.build(
            config.mode,
            config.prompt,
            llm_tokenizer,
            system_prompt=config.system_prompt,
            chat_template_options=config.chat_template_options,
        ),
        max_length=max_length,
        append_source_tokens=config.append_source_tokens,
    )


def _second_options(
    config: ModelConfig, encoder: PreTrainedModel, max_length: int
) -> dict[str, Any]:
    """What a processor is told of the second encoder.

    Args:
        config: names it.
        encoder: whose positions bound what it reads.
        max_length: of the first encoder.
    """
    assert config.second_encoder is not None  # of which it was made
    tokenizer = load_tokenizer(config.second_encoder, config.second_encoder_revision)
    return {
        "second_tokenizer": tokenizer,
        "second_encoder": config.second_encoder,
        "second_encoder_revision": config.second_encoder_revision,
        # Another tokenizer may need more tokens for the same text.
        "second_max_length": min(2 * max_length, encoder_max_length(encoder, tokenizer)),
    }


def _encoders_without_weights(config: ModelConfig) -> list[PreTrainedModel]:
    """The encoder that is configured, or both."""
    encoders = [_without_weights(config.encoder, config.encoder_revision)]
    if config.second_encoder is not None:
        encoders.append(_without_weights(config.second_encoder, config.second_encoder_revision))
    return encoders


def _without_weights(name: str, revision: str | None) -> PreTrainedModel:
    located = load_config(name, "encoder", revision)
    with readable_errors(name, "encoder"), torch.device("meta"):
        return encoder_without_weights(located.config)
