"""Noise on the words that the encoder reads."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from palam.training.code_switching import CodeSwitching


@dataclass(frozen=True)
class WordNoise:
    """Swaps neighbouring words, drops words, and says words in other languages.

    Other languages have other orders of words and say less or more by words of their own; a bridge
    that has only read well-formed English relies on its order.
    """

    swap: float = 0.0
    """The probability of each word to change places with the next, unless it has just changed
    places with the one before: of the places between two words, swap / (1 + swap) are swapped."""
    drop: float = 0.0
    """The probability of each word to be left out."""
    switching: CodeSwitching | None = None
    """Words in other languages; None has none."""

    @property
    def changes(self) -> bool:
        """Whether there is any noise."""
        return bool(self.swap or self.drop or self.switching)

    def content(self) -> Iterator[tuple[str, ...]]:
        """What the noise is made of, row by row: the lexicon's."""
        if self.switching is not None:
            yield from self.switching.lexicon.pairs()

    def applied(self, text: str, number: int) -> str:
        """A text with noise; one word at least stays, and the white space if no word moves.

        Args:
            text: any.
            number: the same draws the same noise.
        """
        if not self.changes:
            return text
        generator = random.Random(number)
        if self.swap or self.drop:
            text = " ".join(self._disordered(text.split(), generator))
        if self.switching is not None:
            text = self.switching.applied(text, generator)
        return text

    def _disordered(self, words: list[str], generator: random.Random) -> list[str]:
        """The words with some neighbours swapped, and without some."""
        place = 0
        while place < len(words) - 1:
            if generator.random() < self.swap:
                words[place], words[place + 1] = words[place + 1], words[place]
                place += 1  # no word moves by two places
            place += 1
        kept = [word for word in words if generator.random() >= self.drop]
        return kept or words[:1]


NO_NOISE = WordNoise()
