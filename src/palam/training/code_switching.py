"""Words of other languages in the English that the encoder reads (code-switching).

The idea is that of CoSDA-ML (Qin et al., arXiv 2006.06402): what reads a text with some of its
words in other languages learns what these have in common. There the encoder itself is trained;
here it is frozen, and the bridge learns which of its states mean the same.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from palam.tasks.lexicon import Lexicon, parts_of_word, word_key

WHITE_SPACE = re.compile(r"(\s+)")
MIXED = 0.4
"""Of the texts that are switched, the share whose words come from all languages."""
LEAST_WORDS = 0.3
"""Of the words that the lexicon has, the least share that is switched; the most is 1."""


@dataclass(frozen=True)
class CodeSwitching:
    """Says some words of a text in another language, or in several."""

    lexicon: Lexicon
    share: float
    """Of the texts in which words are switched."""

    def applied(self, text: str, generator: random.Random) -> str:
        """A text with some of its words in other languages; all around a word stays.

        Args:
            text: any.
            generator: draws whether, which language, how many words, and which.
        """
        if generator.random() >= self.share:
            return text
        language = None
        if generator.random() >= MIXED:
            language = generator.choices(self.lexicon.languages, self.lexicon.weights)[0]
        share = LEAST_WORDS + (1 - LEAST_WORDS) * generator.random()
        switched = []
        for token in WHITE_SPACE.split(text):
            before, word, behind = parts_of_word(token)
            translations = self._translations(word_key(word), language, generator)
            if translations and generator.random() < share:
                token = before + generator.choice(translations) + behind
            switched.append(token)
        return "".join(switched)

    def _translations(
        self, word: str, language: str | None, generator: random.Random
    ) -> Sequence[str]:
        """A word's translations into this language, or into one that is drawn."""
        if language is not None:
            return self.lexicon.by_language[language].get(word, ())
        of_languages = self.lexicon.by_word.get(word, ())
        return generator.choice(of_languages) if of_languages else ()
