"""Noise on the words that the encoder reads."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class WordNoise:
    """Swaps neighbouring words and drops words.

    Other languages have other orders of words and say less or more by words of their own; a bridge
    that has only read well-formed English relies on its order.
    """

    swap: float = 0.0
    """Share of the places between two words where they change places."""
    drop: float = 0.0
    """Share of the words that are left out."""

    def applied(self, text: str, number: int) -> str:
        """A text with noise; one word at least stays.

        Args:
            text: any.
            number: the same draws the same noise.
        """
        if not self.swap and not self.drop:
            return text
        words = text.split()
        generator = random.Random(number)
        place = 0
        while place < len(words) - 1:
            if generator.random() < self.swap:
                words[place], words[place + 1] = words[place + 1], words[place]
                place += 1  # no word moves by two places
            place += 1
        kept = [word for word in words if generator.random() >= self.drop]
        return " ".join(kept or words[:1])
