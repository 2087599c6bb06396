"""What the encoder's layers hold of texts."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from palam.inference.batches import Features, padded_batches
from palam.models.joined_tokens import first_mask
from palam.models.modeling import PalamModel


def encoder_features(
    model: PalamModel, texts: Sequence[str], language: str | None
) -> list[Features]:
    """What the encoder reads of texts, and the LLM does not.

    Args:
        model: whose encoder reads.
        texts: any strings.
        language: of all of them, for encoders that must be told.
    """
    encoded = model.processor.encode_texts(texts, [language] * len(texts), count=False)
    return [{"encoder_input_ids": text["input_ids"]} for text in encoded]


def encoder_states(
    model: PalamModel, features: Sequence[Features], *, batch_size: int = 32
) -> Iterator[tuple[int, list[Tensor]]]:
    """Each text's place, and its L layers [tokens, d_enc]; the longest text first.

    Args:
        model: whose encoder reads; of two, the first one's tokens count.
        features: of each text; what is not for the encoder may be there too.
        batch_size: texts at a time.
    """
    of_encoder = [{"encoder_input_ids": row["encoder_input_ids"]} for row in features]
    for batch in padded_batches(model, of_encoder, batch_size, None):
        ids = batch.inputs["encoder_input_ids"]
        mask = batch.inputs["encoder_attention_mask"]
        with model.evaluating(), torch.no_grad():
            layers = model.encode(ids, mask)  # row after row
        lengths = first_mask(ids, mask).sum(1).tolist()
        of_rows = zip(*(torch.split(layer, lengths) for layer in layers), strict=True)
        for place, states in zip(batch.rows, of_rows, strict=True):
            yield place, list(states)
