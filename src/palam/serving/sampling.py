"""Choosing the next token: the likeliest, or one that is drawn."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from palam.inference.temperature import is_greedy


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 is the likeliest token each time, and so is what [`is_greedy`]."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that have this probability together."""
    seed: int | None = None
    """The same seed gives the same answer, alone or among others; None is a new one each time."""
    guidance_scale: float | None = None
    """How far the answer keeps to the text, see [`guided_scores`]; 1 is as it comes; None is, of
    greedy answers, that of [`default_guidance`]."""
    best_of: int = 1
    """Of how many answers the best is given, see [`coverage`]; 1 is the answer as it comes."""


class TokenChooser(Protocol):
    """Chooses the tokens of one answer."""

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token each time."""

    def choose(self, scores: Tensor, /) -> int:
        """The next token's id, by finite scores [vocabulary]."""


class Sampler:
    """Chooses the tokens of one answer.

    Its random numbers are its own: what stands beside it in a batch changes nothing.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self.options = options
        self._generator = torch.Generator()
        if options.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(options.seed)

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token each time."""
        return is_greedy(self.options.temperature)

    def choose(self, scores: Tensor) -> int:
        """The next token's id, by finite scores [vocabulary]."""
        if self.is_greedy:
            return int(scores.argmax())
        scaled = scores.cpu().double() / self.options.temperature  # MPS has no float64
        probabilities = scaled.softmax(-1)
        ordered, ids = probabilities.sort(descending=True, stable=True)
        likelier = ordered.cumsum(-1) - ordered  # the probability of all tokens before each
        ordered = ordered.masked_fill(likelier >= self.options.top_p, 0)
        place = torch.multinomial(ordered, 1, generator=self._generator)
        return int(ids[place])
