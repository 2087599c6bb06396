"""Tokens of two tokenisations of one text, matched by their characters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.models.processing import PalamProcessor
from palam.models.template import clean
from palam.models.tokenization import PlainText

Range = tuple[int, int]
"""A token's first character, and the one after its last."""


class AlignedTokens(NamedTuple):
    """Aligned tokens: the encoder's states, and what the LLM would have read in their place."""

    states: list[Tensor]
    """L tensors [tokens, d_enc]."""
    targets: Tensor
    """[tokens, d_llm], the LLM's embeddings of the same characters."""
    ids: Tensor
    """[tokens], the LLM's token that holds most of the characters."""


class AlignedBatch(NamedTuple):
    """The aligned tokens of some texts."""

    held_out: bool
    """Whether they are for validation alone."""
    tokens: AlignedTokens


def overlap_shares(ours: Tensor, theirs: Tensor) -> Tensor:
    """How much of each of our tokens' characters belongs to each of theirs.

    Args:
        ours, theirs: character ranges [n, 2] and [m, 2] of two tokenisations of one text.

    Returns:
        [n, m], rows summing to 1, or all 0 for a token with an empty range or no overlap.
        Byte-level pieces of one character share its range, and so share the token evenly.
    """
    our_start, our_end = ours[:, None].unbind(-1)  # [n, 1]
    their_start, their_end = theirs[None].unbind(-1)  # [1, m]
    start = torch.maximum(our_start, their_start)
    end = torch.minimum(our_end, their_end)
    shared = (end - start).clamp(min=0).double()
    total = shared.sum(1, keepdim=True)
    return shared / total.clamp(min=1)


def without_spaces(text: str, ranges: Sequence[Range]) -> Tensor:
    """Character ranges [n, 2] without the white space at their ends; a lone space becomes empty.

    Tokenizers differ in whether a word's token covers the space before it, and some have a token
    for the space.
    """
    trimmed = []
    for start, end in ranges:
        piece = text[start:end]
        leading = len(piece) - len(piece.lstrip())
        trailing = len(piece) - len(piece.rstrip())
        left = start + leading
        right = max(left, end - trailing)
        trimmed.append((left, right))
    pairs = torch.tensor(trimmed, dtype=torch.long)
    return pairs.reshape(-1, 2)  # an empty list too


@torch.no_grad()
def align_tokens(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
) -> AlignedTokens:
    """The encoder's layers and the LLM's embeddings at the aligned tokens of some texts.

    Special tokens, and tokens that cover no visible character, are left out.

    Args:
        model: whose encoder reads the texts, and whose LLM's embeddings are the targets.
        texts: any strings.
        languages: one per text, for encoders that must be told.

    Raises:
        PalamError: a tokenizer that gives no character offsets.
    """
    processor = model.processor
    _check_offsets(processor)
    texts = [clean(text) for text in texts]
    encoded = processor.encode_texts(
        texts,
        languages,
        count=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    llm_text = PlainText(processor.llm_tokenizer)
    device = model.device
    masks, targets, nearest_ids = [], [], []
    for text, ours in zip(texts, encoded, strict=True):
        pieces = llm_text.plain_pieces(text)
        shares = _token_shares(text, ours, [(piece.start, piece.end) for piece in pieces])
        aligned = shares.any(1)
        shares = shares[aligned]
        llm_ids = torch.tensor([piece.id for piece in pieces], dtype=torch.long)
        embeddings = model.embed(llm_ids.to(device)).float()
        masks.append(aligned)
        targets.append(shares.float().to(device) @ embeddings)
        nearest_ids.append(llm_ids[shares.argmax(1)] if pieces else llm_ids)
    rows = [{"encoder_input_ids": ours["input_ids"]} for ours in encoded]
    batch = processor.pad(rows)
    states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    mask = torch.cat(masks).to(device)
    return AlignedTokens(
        states=[state[mask] for state in states],
        targets=torch.cat(targets),
        ids=torch.cat(nearest_ids).to(device),
    )


def _token_shares(
    text: str,
    encoded: dict[str, Any],
    llm_ranges: Sequence[Range],
) -> Tensor:
    """[encoder tokens, LLM tokens] of one text, see [`overlap_shares`]; 0 for special tokens."""
    ours = without_spaces(text, encoded["offset_mapping"])
    theirs = without_spaces(text, llm_ranges)
    shares = overlap_shares(ours, theirs)
    special = torch.tensor(encoded["special_tokens_mask"], dtype=torch.bool)
    shares[special] = 0
    return shares


def _check_offsets(processor: PalamProcessor) -> None:
    tokenizers = {"encoder": processor.encoder_tokenizer, "LLM": processor.llm_tokenizer}
    for role, tokenizer in tokenizers.items():
        if not tokenizer.is_fast:
            raise PalamError(
                f"the {role}'s tokenizer gives no character offsets to solve by; "
                "train with --init random"
            )
