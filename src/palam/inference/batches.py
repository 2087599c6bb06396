"""Texts in padded batches, the longest first."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from transformers import BatchFeature

from palam.models.modeling import PalamModel

FULL_BATCH_TOKENS = 256
"""How long a text may be for a batch to hold `batch_size` of them."""

Progress = Callable[[int], object]
"""Called with the number of texts just read."""
Features = dict[str, Any]
"""One text's unpadded ids, as [`PalamProcessor.features`] gives them."""


class PaddedBatch(NamedTuple):
    """Texts that are read at a time."""

    rows: list[int]
    """Their places among all texts."""
    inputs: BatchFeature
    """What [`PalamModel`] takes."""


def padded_batches(
    model: PalamModel,
    features: Sequence[Features],
    batch_size: int,
    progress: Progress | None,
    prefix_tokens: int = 0,
) -> Iterator[PaddedBatch]:
    """Padded batches of texts, the longest first.

    Args:
        model: whose processor pads.
        features: of each text.
        batch_size: texts at a time; of texts longer than 256 tokens fewer.
        progress: called with the number of texts after each batch.
        prefix_tokens: how many the LLM has read before each text.
    """
    lengths = [text_length(row) for row in features]
    places = range(len(features))
    order = sorted(places, key=lambda row: -lengths[row])
    while order:
        longest = prefix_tokens + lengths[order[0]]
        fitting = batch_size * FULL_BATCH_TOKENS // max(1, longest)
        size = max(1, min(batch_size, fitting))
        rows = order[:size]
        order = order[size:]
        inputs = model.processor.pad([features[row] for row in rows])
        yield PaddedBatch(rows, inputs)
        if progress:
            progress(len(rows))


def text_length(row: Features) -> int:
    """Tokens of a text: the encoder's where it reads it, else the LLM's."""
    name = "encoder_input_ids" if "encoder_input_ids" in row else "input_ids"
    return len(row[name])
