"""What the baselines take to read a text, found without a weight in memory."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutput

from palam.bench.plan import (
    LABEL_TOKENS,
    encoder_operations,
    forward_operations,
    label_factor,
)
from palam.bench.sketches import size_in_bytes, sketch_encoder, sketch_llm, sketch_translator
from palam.models.llm_cache import cache_arguments
from palam.models.model_config import ModelConfig
from palam.starter.resolve import resolve
from palam.utils.device import Placement

BACKWARD = 2
"""How many times what the forward pass takes the backward pass takes."""
BEAMS = 4
"""Of a translator."""
TRAINING_COPIES = 6
"""Of an encoder that is trained: it, the one it is a copy of, the best weights so far, the
gradients, and AdamW's two moments."""


class ReadingPlan(NamedTuple):
    """What one text takes."""

    operations: float
    tokens: int
    """That models read, and write."""
    memory_bytes: int
    """Of the models' weights."""


def plan_encoder_reading(
    model: ModelConfig, placement: Placement, text_tokens: int = 64
) -> ReadingPlan:
    """A text read by the encoder alone.

    Args:
        model: names the encoder.
        placement: its device, dtype and attention.
        text_tokens: the encoder's, of a text.

    Raises:
        PalamError: an encoder that cannot be found or used.
    """
    resolve(model.encoder)  # a starter model is converted with real tensors
    with FakeTensorMode():
        encoder = sketch_encoder(
            model.encoder, model.encoder_revision, placement["dtype"], placement["attention"]
        )
        operations = encoder_operations(encoder, text_tokens)
        return ReadingPlan(operations, text_tokens, size_in_bytes(encoder.parameters()))


def plan_encoder_training(
    model: ModelConfig, placement: Placement, text_tokens: int = 64
) -> ReadingPlan:
    """A text that the whole encoder is trained on, in fp32.

    Args:
        model: names the encoder.
        placement: its device and attention.
        text_tokens: the encoder's, of a text.

    Raises:
        PalamError: an encoder that cannot be found or used.
    """
    in_fp32 = Placement(**{**placement, "dtype": torch.float32})
    reading = plan_encoder_reading(model, in_fp32, text_tokens)
    return ReadingPlan(
        operations=(1 + BACKWARD) * reading.operations,
        tokens=reading.tokens,
        memory_bytes=TRAINING_COPIES * reading.memory_bytes,
    )


def plan_llm_reading(
    model: ModelConfig,
    placement: Placement,
    labels: int,
    *,
    text_tokens: int = 64,
    prompt_tokens: int = 8,
    answer_tokens: int = LABEL_TOKENS,
) -> ReadingPlan:
    """A text read by the LLM itself, which scores the labels behind it.

    Args:
        model: names the LLM.
        placement: its device, dtype and attention.
        labels: how many.
        text_tokens, prompt_tokens, answer_tokens: see [`plan`]; the LLM splits a text into as many
            tokens as the encoder.

    Raises:
        PalamError: an LLM that cannot be found or used.
    """
    resolve(model.llm)
    with FakeTensorMode():
        llm = sketch_llm(model, placement["dtype"], placement["attention"])
        sequence = prompt_tokens + text_tokens + answer_tokens
        operations = forward_operations(llm, 1, sequence, answer_tokens + 1)
        factor = label_factor(labels, sequence, answer_tokens)
        return ReadingPlan(
            operations * factor, round(sequence * factor), size_in_bytes(llm.parameters())
        )


def plan_translation(name: str, placement: Placement, text_tokens: int = 64) -> ReadingPlan:
    """A text translated, into as many tokens as it has.

    Args:
        name: of the translator.
        placement: its device and dtype.
        text_tokens: its own, of a text.

    Raises:
        PalamError: a translator that cannot be found or used.
    """
    with FakeTensorMode():
        translator = sketch_translator(name, placement["dtype"])
        return ReadingPlan(
            _translation_operations(translator, text_tokens),
            2 * text_tokens,
            size_in_bytes(translator.parameters()),
        )


@torch.no_grad()
def _translation_operations(translator: Any, tokens: int) -> float:
    """What a text's encoding takes, and a translation of as many tokens in each beam.

    A token after the first takes what one in the middle takes: it grows evenly with what stands
    before.
    """
    ids = torch.ones(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as reading:
        states = translator.get_encoder()(ids).last_hidden_state
    read = BaseModelOutput(last_hidden_state=states.repeat(BEAMS, 1, 1))
    mask = ids.repeat(BEAMS, 1)

    def written(ids: Tensor, **cache: Any) -> Any:
        return translator(
            encoder_outputs=read,
            attention_mask=mask,
            decoder_input_ids=ids,
            use_cache=True,
            **cache,
        )

    token = torch.ones(BEAMS, 1, dtype=torch.long)
    with FlopCounterMode(display=False) as first:
        written(token)
    half = written(token.repeat(1, max(1, tokens // 2)))
    with FlopCounterMode(display=False) as later:
        written(token, **cache_arguments(half))
    operations: float = reading.get_total_flops() + first.get_total_flops()
    operations += (tokens - 1) * later.get_total_flops()
    return operations
