"""Which base model a bridge belongs to: told by its shapes, its vocabulary and 64 embeddings."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from palam.errors import PalamError

SHAPES = (
    "hidden_size",
    "d_model",
    "num_hidden_layers",
    "num_layers",
    "encoder_layers",
    "vocab_size",
)
"""The sizes of a model's configuration that are recorded, under whichever names it has them."""
ROWS = 64
"""How many embeddings are recorded."""


def fingerprint(model: PreTrainedModel, tokenizer: Any = None) -> dict[str, Any]:
    """A base model's fingerprint.

    Args:
        model: encoder or LLM, in any dtype on any device.
        tokenizer: its tokenizer, or None to leave the vocabulary out.

    Returns:
        `{"shapes": {...}, "vocabulary": SHA-256 or None, "embeddings": SHA-256}`. The embeddings
        are 64 rows evenly spread over the table, cast to bf16, so that a model loaded in bf16 has
        the fingerprint of the same in fp32.
    """
    return {
        "shapes": _shapes(model),
        "vocabulary": None if tokenizer is None else _vocabulary_digest(tokenizer),
        "embeddings": _embeddings_digest(model),
    }


def _shapes(model: PreTrainedModel) -> dict[str, int]:
    config: Any = model.config.get_text_config()
    sizes = {name: getattr(config, name, None) for name in SHAPES}
    return {name: size for name, size in sizes.items() if isinstance(size, int)}


def _vocabulary_digest(tokenizer: Any) -> str:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    pairs = sorted(vocabulary.items(), key=lambda pair: (pair[1], pair[0]))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _embeddings_digest(model: PreTrainedModel) -> str:
    embeddings: Any = model.get_input_embeddings()
    table: Tensor = embeddings.weight.detach()
    rows = torch.arange(ROWS) * table.shape[0] // ROWS
    sample = table[rows.to(table.device)].to("cpu", torch.bfloat16).contiguous()
    return hashlib.sha256(sample.view(torch.uint8).numpy().tobytes()).hexdigest()


def check_fingerprint(
    part: str,
    expected: dict[str, Any] | None,
    actual: dict[str, Any] | None,
    name: str,
    hint: str = "",
) -> None:
    """Refuse a base model that is not the one the bridge was trained with.

    Args:
        part: `"encoder"` or `"LLM"`, for the message.
        expected: the fingerprint saved in the checkpoint.
        actual: the fingerprint of the loaded model. Nothing is checked if either is missing.
        name: its id or folder, for the message.
        hint: what could be done, for the message.

    Raises:
        PalamError: they differ; the message names in what.
    """
    if not expected or not actual:
        return
    differences = _differences(expected, actual)
    if differences:
        listed = "; ".join(differences)
        raise PalamError(
            f"{name} is not the {part} that this bridge was trained with ({listed}){hint}"
        )


def _differences(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """In what two fingerprints differ."""
    differences = []
    for name, size in expected["shapes"].items():
        # Releases of transformers differ in the names they give a size: a missing one is skipped.
        actual_size = actual["shapes"].get(name, size)
        if actual_size != size:
            differences.append(f"{name} is {actual_size}, not {size}")
    vocabularies = (expected["vocabulary"], actual["vocabulary"])
    if None not in vocabularies and vocabularies[0] != vocabularies[1]:
        differences.append("another vocabulary")
    if expected["embeddings"] != actual["embeddings"] and not differences:
        differences.append("other weights")
    return differences
