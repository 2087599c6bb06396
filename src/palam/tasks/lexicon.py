"""Lexicons: words of a text's own language, and what other languages say for them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.tasks.readers import RowSource, text_of

WORD = "word"
TRANSLATION = "translation"
LANGUAGE = "language"
COLUMNS = (WORD, TRANSLATION, LANGUAGE)
"""The columns of a lexicon's file."""
Translations = Mapping[str, tuple[str, ...]]
"""By a word, in small letters."""


def parts_of_word(token: str) -> tuple[str, str, str]:
    """What stands before a word, the word itself, and what stands behind it, as in `(word),`.

    A word begins and ends with a letter, a digit or a mark: vowel signs and the like belong to it.

    Args:
        token: what stands between two spaces.
    """
    start = 0
    while start < len(token) and not _is_of_a_word(token[start]):
        start += 1
    end = len(token)
    while end > start and not _is_of_a_word(token[end - 1]):
        end -= 1
    return token[:start], token[start:end], token[end:]


def _is_of_a_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


@dataclass(frozen=True)
class Lexicon:
    """Translations of words into other languages.

    Attributes:
        by_language: of each language, its translations of each word.
        by_word: of each word, its translations in each of the languages that have any.
    """

    by_language: Mapping[str, Translations]
    by_word: Mapping[str, tuple[tuple[str, ...], ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_word: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for translations in self.by_language.values():
            for word, words in translations.items():
                by_word[word].append(words)
        frozen = {word: tuple(languages) for word, languages in by_word.items()}
        object.__setattr__(self, "by_word", frozen)

    def pairs(self) -> Iterator[tuple[str, str, str]]:
        """Each word, a translation, and its language."""
        for language, translations in self.by_language.items():
            for word, words in translations.items():
                for translation in words:
                    yield word, translation, language

    @property
    def languages(self) -> list[str]:
        """Their names, as the file has them."""
        return list(self.by_language)

    @property
    def weights(self) -> list[float]:
        """How often each language is to be drawn: by the root of how many words it has."""
        return [len(translations) ** 0.5 for translations in self.by_language.values()]


def read_lexicon(source: RowSource) -> Lexicon:
    """Read what `palam lexicon` writes, or a lexicon of one's own.

    Args:
        source: rows with the columns `word`, `translation` and `language`, a pair a row; further
            columns are left alone. Names of languages may be any; pairs of one stand anywhere.

    Raises:
        PalamError: a row without one of the columns or with nothing in it, which is named; a file
            without pairs.
    """
    pairs: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for place, row in source.rows():
        word, translation, language = (_filled(row, column, place) for column in COLUMNS)
        pairs[language][word.lower()][translation] = None
    if not pairs:
        raise PalamError(f"{source.name} holds no words")
    return Lexicon(
        {
            language: {word: tuple(translations) for word, translations in of_words.items()}
            for language, of_words in pairs.items()
        }
    )


def _filled(row: Row, column: str, place: str) -> str:
    """A column's text, which must not be empty."""
    value = text_of(row, column, place).strip()
    if not value:
        raise PalamError(f'{place}: the column "{column}" is empty')
    return value
