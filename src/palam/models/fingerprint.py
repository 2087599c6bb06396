"""Which base model a bridge belongs to: told by its shapes, its vocabulary and 64 of its embeddings."""

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
ROWS = 64


def fingerprint(model: PreTrainedModel, tokenizer: Any = None) -> dict[str, Any]:
    """A base model's fingerprint.

    Args:
        model: encoder or LLM, in any dtype on any device.
        tokenizer: its tokenizer, or None to leave the vocabulary out.

    Returns:
        `{"shapes": {...}, "vocabulary": SHA-256 or None, "embeddings": SHA-256}`. The embeddings are 64 rows evenly
        spread over the table, cast to bf16, so that a model loaded in bf16 has the fingerprint of the same in fp32.
    """
    config: Any = model.config.get_text_config()
    shapes = {name: size for name in SHAPES if isinstance(size := getattr(config, name, None), int)}
    embeddings: Any = model.get_input_embeddings()
    table: Tensor = embeddings.weight.detach()
    rows = torch.arange(ROWS) * table.shape[0] // ROWS
    picked = table[rows.to(table.device)].to("cpu", torch.bfloat16).contiguous()
    vocabulary = None
    if tokenizer is not None:
        pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
        vocabulary = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    digest = hashlib.sha256(picked.view(torch.uint8).numpy().tobytes()).hexdigest()
    return {"shapes": shapes, "vocabulary": vocabulary, "embeddings": digest}


def check_fingerprint(
    part: str, expected: dict[str, Any] | None, found: dict[str, Any], name: str, hint: str = ""
) -> None:
    """Refuse a base model that is not the one the bridge was trained with.

    Args:
        part: `"encoder"` or `"LLM"`, for the message.
        expected: the fingerprint saved in the checkpoint; None checks nothing.
        found: the fingerprint of the loaded model.
        name: its id or folder, for the message.
        hint: what could be done, for the message.

    Raises:
        PalamError: they differ; the message names in what.
    """
    if not expected:
        return
    # Releases of transformers differ in the aliases they give a size: one that is not found is not compared.
    pairs = {
        key: (found["shapes"].get(key, want), want) for key, want in expected["shapes"].items()
    }
    differing = [
        f"{key} is {have}, not {want}" for key, (have, want) in pairs.items() if have != want
    ]
    if (
        None not in (expected["vocabulary"], found["vocabulary"])
        and expected["vocabulary"] != found["vocabulary"]
    ):
        differing.append("another vocabulary")
    if expected["embeddings"] != found["embeddings"] and not differing:
        differing.append("other weights")
    if differing:
        raise PalamError(
            f"{name} is not the {part} that this bridge was trained with ({'; '.join(differing)}){hint}"
        )
