"""The solved start: the mapper's readout in closed form, from English text alone.

The encoder's tokens and the LLM's tokens of the same text are aligned by character offsets; one ridge regression
takes the fused states to the LLM's own input embeddings of the same characters. No gradient, no label, no foreign
text. Only sums over tokens are kept, so memory does not depend on the number of texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.model import PalamModel
from palam.processor import clean

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
HELD_OUT_EVERY = 10


@dataclass
class Solved:
    """What a solve found: ridge strength (relative to the features' mean variance) and held-out R²."""

    tokens: int
    strength: float
    r2: float


class Moments:
    """Sums from which a ridge regression of y [n, q] on x [n, p] is solved, in float64."""

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.count = 0
        self.x, self.y = zeros(inputs), zeros(outputs)
        self.xx, self.xy, self.yy = zeros(inputs, inputs), zeros(inputs, outputs), zeros(outputs)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, p] and y [n, q]."""
        x, y = x.to(self.x.device).double(), y.to(self.x.device).double()
        self.count += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += y.square().sum(0)

    def merge(self, other: "Moments") -> None:
        """Add another's sums."""
        for name in ("count", "x", "y", "xx", "xy", "yy"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def solve(self, strengths: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Weight [q, p] and bias [q] for each ridge strength, relative to the mean variance of x."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        values, vectors = torch.linalg.eigh(self.xx / self.count - mean_x.outer(mean_x))
        projected = vectors.T @ (self.xy / self.count - mean_x.outer(mean_y))
        scale = values.clamp(min=0).mean().clamp(min=1e-30)
        solutions = []
        for strength in strengths:
            weight = (vectors @ (projected / (values.clamp(min=0) + strength * scale)[:, None])).T
            solutions.append((weight, mean_y - weight @ mean_x))
        return solutions

    def r2(self, weight: Tensor, bias: Tensor) -> float:
        """Share of the variance of y that weight and bias explain on these rows."""
        fitted = (weight @ self.xx * weight).sum() + 2 * bias @ (weight @ self.x) + self.count * bias @ bias
        crossed = (weight * self.xy.T).sum() + bias @ self.y
        total = self.yy.sum() - self.y.square().sum() / self.count
        return 1 - ((self.yy.sum() - 2 * crossed + fitted) / total).item()


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


@torch.no_grad()
def token_pairs(
    model: PalamModel, texts: Sequence[str], languages: Sequence[str | None] | None = None
) -> tuple[list[Tensor], Tensor]:
    """The encoder's layers and the LLM's embeddings at the aligned tokens of some texts.

    Returns:
        L tensors [tokens, d_enc], and targets [tokens, d_llm]: the LLM's embeddings of the same characters.

    Raises:
        PalamError: a tokenizer that gives no character offsets.
    """
    processor = model.processor
    for part, tokenizer in (("encoder", processor.encoder_tokenizer), ("LLM", processor.llm_tokenizer)):
        if not tokenizer.is_fast:
            raise PalamError(f"the {part}'s tokenizer gives no character offsets to solve by; train with --init random")
    texts = [clean(text) for text in texts]
    wanted = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    ours = processor.encode_texts(texts, languages, count=False, **wanted)
    theirs = processor.llm_tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    table: list[Tensor] = []
    kept: list[Tensor] = []
    for row, mine in enumerate(ours):
        ids = torch.tensor(theirs["input_ids"][row], dtype=torch.long, device=model.device)
        offsets = (mine["offset_mapping"], theirs["offset_mapping"][row])
        shares = overlap_shares(*(torch.tensor(ranges, dtype=torch.long).reshape(-1, 2) for ranges in offsets))
        shares[torch.tensor(mine["special_tokens_mask"], dtype=torch.bool)] = 0
        kept.append(shares.any(1))
        table.append(shares[kept[-1]].float().to(model.device) @ model.embed(ids).float())
    rows = [{"encoder_input_ids": mine["input_ids"], "input_ids": []} for mine in ours]
    batch = processor.pad(rows)
    states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    chosen = torch.cat(kept).to(model.device)
    return [state[chosen] for state in states], torch.cat(table)


@torch.no_grad()
def solve(
    model: PalamModel,
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    batch_size: int = 32,
    strengths: Sequence[float] = STRENGTHS,
) -> Solved:
    """Solve the mapper's readout, in place, with the fusion at its present weights.

    Every tenth text is held out to choose the ridge strength; the solution then uses all of them.

    Args:
        model: its bridge's mapper is changed.
        texts: English texts.
        languages: one per text, for encoders that must be told.
        batch_size: texts at a time.
        strengths: ridge strengths to choose from, relative to the mean variance of a feature.

    Raises:
        PalamError: fewer aligned tokens than a regression needs, or a tokenizer without offsets.
    """
    readout = model.bridge.mapper.readout
    device = "cpu" if model.device.type == "mps" else model.device  # MPS has no float64
    fit, held = (Moments(readout.in_features, readout.out_features, device) for _ in range(2))
    was_training = model.training
    model.eval()
    order = [i for i in range(len(texts)) if i % HELD_OUT_EVERY] or list(range(len(texts)))
    try:
        for moments, rows in ((fit, order), (held, range(0, len(texts), HELD_OUT_EVERY))):
            for first in range(0, len(rows), batch_size):
                chosen = rows[first : first + batch_size]
                states, targets = token_pairs(
                    model, [texts[i] for i in chosen], [languages[i] for i in chosen] if languages else None
                )
                fused, _ = model.bridge.fusion([state.float() for state in states])
                moments.add(model.bridge.mapper.features(fused), targets)
    finally:
        model.train(was_training)
    if fit.count < 2 or held.count < 2:
        raise PalamError("too little text to solve the start from: give more, or train with --init random")
    solutions = fit.solve(strengths)
    scores = [held.r2(weight, bias) for weight, bias in solutions]
    best = max(range(len(scores)), key=scores.__getitem__)
    fit.merge(held)
    weight, bias = fit.solve([strengths[best]])[0]
    readout.weight.copy_(weight.float())
    readout.bias.copy_(bias.float())
    return Solved(fit.count, strengths[best], scores[best])
