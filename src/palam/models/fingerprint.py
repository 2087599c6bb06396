"""Which base model a bridge belongs to: told by its shapes, its vocabulary and 64 embeddings."""

import hashlib
import json
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from palam.errors import PalamError

ROLES = {"encoder": "encoder", "second_encoder": "second encoder", "llm": "LLM"}
"""The base models by their names in settings, and what messages call them."""
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
SIGN_STEPS = (40_503, 25_691)
"""By which the signs of two sums over a row are spread."""
TOLERANCE = 2.0**-6
"""How far such a sum may be from that of the same row in another dtype, by the row's norm."""
SMALLEST = 1e-6
"""The same for rows of next to nothing, of which fp16 keeps little."""


def fingerprint(model: PreTrainedModel, tokenizer: Any = None) -> dict[str, Any]:
    """A base model's fingerprint.

    Args:
        model: encoder or LLM, in any dtype on any device.
        tokenizer: its tokenizer, or None to leave the vocabulary out.

    Returns:
        `{"shapes": {...}, "vocabulary": SHA-256 or None, "embeddings": SHA-256}`. The embeddings
        are 64 rows evenly spread over the table, cast to bf16, so that a model loaded in bf16 has
        the fingerprint of the same in fp32. Of fp16 that is not so: it rounds otherwise. So there
        is `"sample"` too, two sums and the norm of each row, which are compared with a tolerance
        where one of two models is in fp16 (`"half"`); and of a model in fp32
        `"embeddings_of_half"`, what an earlier fingerprint, which has no sample, says of it if it
        was taken in fp16.
    """
    sample = _embedding_sample(model)
    recorded: dict[str, Any] = {
        "shapes": _shapes(model),
        "vocabulary": None if tokenizer is None else _vocabulary_digest(tokenizer),
        "embeddings": _digest(sample),
        "sample": _projections(sample),
    }
    embeddings: Any = model.get_input_embeddings()
    if embeddings.weight.dtype == torch.float16:
        recorded["half"] = True
    elif embeddings.weight.dtype == torch.float32:
        recorded["embeddings_of_half"] = _digest(_embedding_sample(model, torch.float16))
    return recorded


def _shapes(model: PreTrainedModel) -> dict[str, int]:
    config: Any = model.config.get_text_config()
    sizes = {name: getattr(config, name, None) for name in SHAPES}
    return {name: size for name, size in sizes.items() if isinstance(size, int)}


def _vocabulary_digest(tokenizer: Any) -> str:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    pairs = sorted(vocabulary.items(), key=itemgetter(1, 0))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _embedding_sample(model: PreTrainedModel, through: torch.dtype = torch.bfloat16) -> Tensor:
    """[64, d], in bf16, cast to another dtype before."""
    embeddings: Any = model.get_input_embeddings()
    table: Tensor = embeddings.weight.detach()
    rows = torch.arange(ROWS) * table.shape[0] // ROWS
    picked = table[rows.to(table.device)].to("cpu", through)
    return picked.to(torch.bfloat16).contiguous()


def _projections(sample: Tensor) -> list[list[float]]:
    """[64, 3]: of each row two sums with fixed signs, and the norm."""
    values = sample.double()
    places = torch.arange(values.shape[1])
    columns = []
    for step in SIGN_STEPS:
        signs = (places * step // 65_536) % 2 * 2 - 1
        columns.append((values * signs).sum(1))
    columns.append(values.norm(dim=1))
    return [[float(f"{number:.6g}") for number in row] for row in torch.stack(columns, 1).tolist()]


def _digest(sample: Tensor) -> str:
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
        part: one of the values of `ROLES`, for the message.
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
    if not differences and not _same_embeddings(expected, actual):
        differences.append("other weights")
    return differences


def _same_embeddings(expected: dict[str, Any], actual: dict[str, Any]) -> bool:
    """Whether two fingerprints may be of the same embeddings, whatever the dtypes are."""
    if expected["embeddings"] in (actual["embeddings"], actual.get("embeddings_of_half")):
        return True
    if not (expected.get("half") or actual.get("half")):
        return False
    if "sample" not in expected or "sample" not in actual:
        return True  # recorded before there was a sample: fp16 cannot be compared with it
    theirs = torch.tensor(expected["sample"], dtype=torch.float64)
    ours = torch.tensor(actual["sample"], dtype=torch.float64)
    if theirs.shape != ours.shape:
        return False
    allowed = TOLERANCE * theirs[:, -1:] + SMALLEST
    return bool(((theirs - ours).abs() <= allowed).all())
