"""Tokens of two tokenisations of one text, matched by their characters."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.models.processing import clean


class AlignedTokens(NamedTuple):
    """Aligned tokens: the encoder's states, and what the LLM would have read in their place."""

    states: list[Tensor]
    """L tensors [tokens, d_enc]."""
    targets: Tensor
    """[tokens, d_llm], the LLM's embeddings of the same characters."""
    ids: Tensor
    """[tokens], the LLM's token that holds most of the characters."""


def overlap_shares(ours: Tensor, theirs: Tensor) -> Tensor:
    """How much of each of our tokens' characters belongs to each of theirs.

    Args:
        ours, theirs: character ranges [n, 2] and [m, 2] of two tokenisations of one text.

    Returns:
        [n, m], rows summing to 1, or all 0 for a token with an empty range or no overlap. Byte-level pieces of one
        character share its range, and so share the token evenly.
    """
    start = torch.maximum(ours[:, None, 0], theirs[None, :, 0])
    end = torch.minimum(ours[:, None, 1], theirs[None, :, 1])
    shared = (end - start).clamp(min=0).double()
    return shared / shared.sum(1, keepdim=True).clamp(min=1)


def without_spaces(text: str, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """Character ranges [n, 2] without the white space at their ends; a lone space becomes empty.

    Tokenizers differ in whether a word's token covers the space before it, and some have a token for the space.
    """
    trimmed = []
    for start, end in ranges:
        piece = text[start:end]
        left = start + len(piece) - len(piece.lstrip())
        trimmed.append((left, max(left, end - len(piece) + len(piece.rstrip()))))
    return torch.tensor(trimmed, dtype=torch.long).reshape(-1, 2)


@torch.no_grad()
def align_tokens(
    model: PalamModel, texts: Sequence[str], languages: Sequence[str | None] | None = None
) -> AlignedTokens:
    """The encoder's layers and the LLM's embeddings at the aligned tokens of some texts.

    Special tokens, and tokens that cover no visible character, are left out.

    Raises:
        PalamError: a tokenizer that gives no character offsets.
    """
    processor = model.processor
    for part, tokenizer in (
        ("encoder", processor.encoder_tokenizer),
        ("LLM", processor.llm_tokenizer),
    ):
        if not tokenizer.is_fast:
            raise PalamError(
                f"the {part}'s tokenizer gives no character offsets to solve by; train with --init random"
            )
    texts = [clean(text) for text in texts]
    wanted = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    ours = processor.encode_texts(texts, languages, count=False, **wanted)
    theirs = processor.llm_tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    kept, targets, found = [], [], []
    for row, (text, mine) in enumerate(zip(texts, ours, strict=True)):
        ids = torch.tensor(theirs["input_ids"][row], dtype=torch.long)
        offsets = mine["offset_mapping"], theirs["offset_mapping"][row]
        shares = overlap_shares(*(without_spaces(text, ranges) for ranges in offsets))
        shares[torch.tensor(mine["special_tokens_mask"], dtype=torch.bool)] = 0
        kept.append(shares.any(1))
        shares = shares[kept[-1]]
        targets.append(shares.float().to(model.device) @ model.embed(ids.to(model.device)).float())
        found.append(ids[shares.argmax(1)] if len(ids) else ids)
    batch = processor.pad([{"encoder_input_ids": mine["input_ids"]} for mine in ours])
    states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    chosen = torch.cat(kept).to(model.device)
    return AlignedTokens(
        [state[chosen] for state in states], torch.cat(targets), torch.cat(found).to(model.device)
    )
