"""The vectors that the LLM reads of prompts: embedded ids, mapped texts, boundaries."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from palam.models.joined_tokens import first_mask
from palam.models.modeling import PalamModel
from palam.models.processing import TEXT_SLOT
from palam.serving.prompts import Prompt


@torch.no_grad()
def prompt_vectors(model: PalamModel, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Each prompt's vectors [length, d_llm]; the encoder reads all texts in one batch."""
    mapped = iter(_mapped_texts(model, [text for prompt in prompts for text in prompt.texts]))
    return [_joined(model, prompt, mapped) for prompt in prompts]


def _mapped_texts(model: PalamModel, texts: Sequence[list[int]]) -> list[Tensor]:
    """Texts of encoder ids as vectors [tokens, d_llm], each with the boundary behind it."""
    if not texts:
        return []
    batch = model.processor.pad([{"encoder_input_ids": ids} for ids in texts])
    vectors: Any = model.encoding.mapped(
        batch["encoder_input_ids"], batch["encoder_attention_mask"]
    )
    lengths = first_mask(batch["encoder_input_ids"], batch["encoder_attention_mask"]).sum(1)
    boundary = model.bridge.boundary[None].to(vectors.dtype)
    return [torch.cat([part, boundary]) for part in vectors.split(lengths.tolist())]


def _joined(model: PalamModel, prompt: Prompt, mapped: Iterator[Tensor]) -> Tensor:
    ids = torch.tensor(prompt.input_ids, device=model.device)
    is_slot = ids == TEXT_SLOT
    embedded = model.embed(ids.masked_fill(is_slot, 0))
    parts = []
    start = 0
    for slot in is_slot.nonzero()[:, 0].tolist():
        parts.append(embedded[start:slot])
        parts.append(next(mapped).to(embedded.dtype))
        start = slot + 1
    return torch.cat([*parts, embedded[start:]])
