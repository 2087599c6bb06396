"""What clients ask of the engine, and what it tells them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from palam.serving.errors import RequestError
from palam.serving.prompts import Message
from palam.serving.sampling import SamplingOptions


class Started(NamedTuple):
    """The prompt of an answer was accepted."""

    prompt_tokens: int
    """Positions of the LLM that it takes."""
    cut_texts: int
    """How many of its texts are longer than the bridge reads."""


class TextDelta(NamedTuple):
    """A further piece of an answer."""

    text: str


class Finished(NamedTuple):
    """An answer is complete; its text is all the pieces."""

    reason: str
    """`stop` or `length`."""
    completion_tokens: int
    """How many tokens were made, the end included."""


class Classified(NamedTuple):
    """The scores of a classification."""

    scores: list[list[float]]
    """The log-probability of each label as the answer to each text, less its prior."""
    cut: list[bool]
    """Whether each text is longer than the bridge reads."""


class LayersRead(NamedTuple):
    """How much each layer counts for each token of a text."""

    tokens: list[str]
    """The encoder's, readable."""
    shares: list[list[float]]
    """[tokens, layers], each row summing to 1."""
    cut: bool
    """Whether the text is longer than the bridge reads."""


class Failed(NamedTuple):
    """Nothing more comes."""

    error: RequestError


Event = Started | TextDelta | Finished | Classified | LayersRead | Failed
Deliver = Callable[[Event], None]
"""Takes what the engine tells; called in the engine's thread, so it must return at once."""


@dataclass(kw_only=True, eq=False)
class Job:
    """One request at work."""

    bridge: str
    """The name of the bridge that is asked."""
    deliver: Deliver
    deadline: float = float("inf")
    """By the monotonic clock."""
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Nobody waits for the answer any more: its place is free within a step."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._cancelled.is_set()

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.deadline


@dataclass(kw_only=True, eq=False)
class AnswerJob(Job):
    """A free answer."""

    messages: Sequence[Message]
    language: str | None = None
    """Of plain messages."""
    max_new_tokens: int | None = None
    """Most tokens of the answer; None is as many as the server and the LLM allow."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stops: Sequence[str] = ()


@dataclass(kw_only=True, eq=False)
class ClassifyJob(Job):
    """Label scores of texts."""

    texts: Sequence[str]
    languages: Sequence[str | None]
    labels: tuple[str, ...]
    """The words that the LLM answers."""


@dataclass(kw_only=True, eq=False)
class LayersJob(Job):
    """How the bridge reads one text."""

    text: str
    language: str | None = None
