"""How much a server takes on, at a time and of one request."""

from dataclasses import dataclass

CHARACTERS_PER_TOKEN = 16
"""A text with more characters than this a token is refused before it is tokenised."""


@dataclass(frozen=True, kw_only=True)
class ServeLimits:
    """What one request may ask for, and how many are read together."""

    max_text_tokens: int = 4096
    """Most tokens of a text, or of all that stands in a prompt."""
    max_new_tokens: int = 256
    """Most tokens of an answer; also what a request that says none gets."""
    max_queue: int = 128
    """Most requests that wait; further ones are told to come back."""
    timeout: float = 120.0
    """Seconds that a request may take, waiting included."""
    max_body_bytes: int = 2_000_000
    """Most bytes of a request."""
    max_texts: int = 256
    """Most texts of one classification."""
    max_labels: int = 256
    """Most labels of one classification."""
    max_messages: int = 256
    """Most messages of a chat, and most parts of a message."""
    max_batch: int = 32
    """Most requests in one pass of the LLM."""
    batch_tokens: int = 8192
    """Most tokens in one pass, padding included; one text alone may have more."""
    batch_wait: float = 0.004
    """Seconds that an idle engine waits for more requests to read with the first."""

    @property
    def max_text_characters(self) -> int:
        """Most characters of a text, which is known before it is tokenised."""
        return CHARACTERS_PER_TOKEN * self.max_text_tokens


class AdaptiveLimit:
    """How many requests go into a batch: halved when memory did not suffice, later doubled again.

    Args:
        most: where it starts, and never goes above.
    """

    RECOVERY = 64
    """Batches that must succeed before it is doubled."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.value = most
        self._successes = 0

    def failed(self, rows: int) -> None:
        """A batch of so many rows did not fit."""
        self.value = max(1, min(self.value, rows // 2))
        self._successes = 0

    def succeeded(self) -> None:
        """A batch was read."""
        self._successes += 1
        if self.value < self.most and self._successes >= self.RECOVERY:
            self.value = min(self.most, 2 * self.value)
            self._successes = 0
