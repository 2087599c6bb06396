"""Lexicons: words of a text's own language, and what other languages say for them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from palam.errors import PalamError
from palam.tasks.formats import Row
from palam.tasks.readers import RowSource, text_of
from palam.utils.languages import Language, find_language, languages
from palam.utils.notes import tell

WORD = "word"
TRANSLATION = "translation"
LANGUAGE = "language"
COLUMNS = (WORD, TRANSLATION, LANGUAGE)
"""The columns of a lexicon's file."""
Translations = Mapping[str, tuple[str, ...]]
"""By a word, as [`word_key`] has it."""


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


def word_key(word: str) -> str:
    """What a word is looked up by: in small letters, its marks composed (NFC)."""
    return unicodedata.normalize("NFC", word.lower())


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
        """Their names, as the file first has them."""
        return list(self.by_language)

    def has_word_of(self, text: str) -> bool:
        """Whether a word of a text is among those that are translated."""
        return any(word_key(parts_of_word(token)[1]) in self.by_word for token in text.split())

    @property
    def weights(self) -> list[float]:
        """How often each language is to be drawn: by the root of how many words it has."""
        return [len(translations) ** 0.5 for translations in self.by_language.values()]


def read_lexicon(source: RowSource, notes: list[str] | None = None) -> Lexicon:
    """Read what `palam lexicon` writes, or a lexicon of one's own.

    Args:
        source: rows with the columns `word`, `translation` and `language`, a pair a row; further
            columns are left alone. Names of languages may be any; pairs of one stand anywhere. Its
            codes and its English name are one language, called as the file first calls it. Signs
            around a word are not of it.
        notes: gets a line about pairs that are left out, for a text never has what they translate
            as one word; see [`tell`].

    Raises:
        PalamError: a row without one of the columns or with nothing in it, which is named; a file
            without pairs, or with none for a single word.
    """
    pairs: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    names: dict[str, str] = {}
    num_pairs = 0
    num_left_out = 0
    for place, row in source.rows():
        phrase, translation, language = (_filled(row, column, place) for column in COLUMNS)
        num_pairs += 1
        word = word_key(parts_of_word(phrase)[1])
        if len(word.split()) != 1:
            num_left_out += 1
            continue
        name = names.setdefault(_language_key(language), language)
        pairs[name][word][translation] = None
    if not num_pairs:
        raise PalamError(f"{source.name} holds no words")
    if not pairs:
        raise PalamError(f"{source.name} holds no pair for a single word; longer ones are not used")
    if num_left_out:
        tell(
            f"{source.name}: {num_left_out:,} of {num_pairs:,} pairs are for no single word; "
            "they are not used",
            notes,
        )
    return Lexicon(
        {
            language: {word: tuple(translations) for word, translations in of_words.items()}
            for language, of_words in pairs.items()
        }
    )


def _language_key(name: str) -> str:
    """What all names of a language have in common: its code; of an unknown one small letters."""
    language = find_language(name) or _language_by_name().get(name.lower())
    return name.lower() if language is None else language.code


@cache
def _language_by_name() -> dict[str, Language]:
    """Languages by their English names, in small letters."""
    return {language.name.lower(): language for language in languages()}


def _filled(row: Row, column: str, place: str) -> str:
    """A column's text, which must not be empty."""
    value = text_of(row, column, place).strip()
    if not value:
        raise PalamError(f'{place}: the column "{column}" is empty')
    return value
