"""What an engine beside transformers does: it continues prompts of vectors, many at a time.

Encoder and bridge stay in Palam. An engine gets what the LLM reads, and gives the ids that follow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How one answer is made."""

    max_new_tokens: int
    """Most ids of it, the end included."""
    stop_ids: tuple[int, ...] = ()
    """Ids at which it ends; see [`stop_ids`]."""
    temperature: float = 0.0
    """0 is the likeliest token each time."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that have this probability together."""
    seed: int | None = None
    """Of what is drawn; None is a new one each time."""


class NewTokens(NamedTuple):
    """What an engine has added to an answer."""

    name: str
    """The answer's, as it was given to `add`."""
    ids: list[int]
    """That are new; the one at which it ends is among them."""
    is_finished: bool
    """Whether nothing follows."""


class TokenEngine(Protocol):
    """Continues prompts of one LLM. One thread at a time may call it."""

    @property
    def max_length(self) -> int:
        """Most positions of a prompt and its answer together."""
        ...

    def add(self, name: str, vectors: Tensor, decoding: Decoding) -> None:
        """Begin an answer.

        Args:
            name: of the answer; none that runs has the same.
            vectors: [length, d_llm], what the LLM reads, without padding.
            decoding: how the answer is made.

        Raises:
            PalamError: vectors or settings that the engine does not take; nothing was begun.
        """
        ...

    def step(self) -> list[NewTokens]:
        """Go on with all answers; what is new of some of them, perhaps of none.

        Raises:
            PalamError: the engine has failed.
        """
        ...

    def cancel(self, names: Iterable[str]) -> None:
        """Drop answers; names of none that runs are passed over."""
        ...
