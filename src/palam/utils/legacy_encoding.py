"""Texts that are not Unicode: fonts and encodings of before, which no encoder has been trained on.

Zawgyi writes Burmese with the code points of Unicode in another order and with other meanings.
Fonts such as FM-Abhaya (Sinhala) and Bamini (Tamil) draw letters in the places of Latin ones and of
punctuation: `Y%S ,xld` for ශ්‍රී ලංකා. TSCII has Tamil letters where Latin-1 has accents and signs.
What is recognised is plainly so: each rule asks for what other texts, English, code and addresses
among them, do not have.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from palam.utils.languages import find_language

MAX_CHARACTERS = 50_000
"""So much of the texts is looked at."""
BURMESE = re.compile(r"[\u1000-\u109f]")
ZAWGYI = re.compile(
    r"\u1039(?![\u1000-\u1021])"  # a stacking sign with nothing to stack: it is Zawgyi's asat
    r"|(?<![\u1000-\u109f])[\u102b-\u1032\u1036-\u1038\u103a-\u103e]"  # a sign without a letter
    r"|[\u102b-\u1030\u1032\u1036-\u1038\u103a]\u1031"  # a vowel in front of its letter
)
LATIN_LETTER = re.compile("[A-Za-z]")
LETTER = "[A-Za-z\xa1-\xff]"
MARK = re.compile(rf"(?:^|(?<={LETTER}))([;,.%~<|>*:\[])(?={LETTER})")
"""A sign that stands where a letter would: at the beginning of a word, or within it."""
CODE = re.compile(r"[(){}=_/\\#&$+@0-9\"\]]")
"""What words of code, addresses and mark-up hold, and those of these fonts hardly."""
FREQUENT_WORDS = """
a an and are as at be by class def else for from if import in is it not of on or return that the
this to was with you
"""
ENGLISH = frozenset(FREQUENT_WORDS.split())
"""Frequent words of English and of programs."""
MOST_CODE = 0.15
"""The largest share of words with signs of code that texts for a font can have."""
MOST_ENGLISH = 0.05
"""The largest share of English words that they can have."""
MOST_VOWELS = {"sin": 0.33, "tam": 0.27}
"""Of the Latin letters; it is 0.38 in English, 0.26 with FM-Abhaya and 0.18 with Bamini."""
LEAST_MARKED_WORDS = 4
"""Words with signs within them that there must be."""
LEAST_WHERE_TOLD = 2
"""The same, where the language is given and is often written for such fonts."""
SIGNS = re.compile(r"[\xa1-\xbf]")
HIGH = re.compile(r"[\xa1-\xff\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]")
"""Characters of the upper half of Windows' Latin encoding."""


def legacy_encoding(texts: Iterable[str], language: str | None = None) -> str | None:
    """What texts are in, if they are plainly not in Unicode.

    Args:
        texts: of one language; the first of them are looked at.
        language: its code; only what is written in it so is then looked for. None is unknown.

    Returns:
        One line for the user, or None.
    """
    sample = _beginning(texts)
    known = find_language(language) if language else None
    code = known.iso3 if known else None
    if code in (None, "mya") and _is_zawgyi(sample):
        return _advice("Burmese in Zawgyi")
    if _is_misread_utf8(sample):
        return _advice("UTF-8 that was read as Latin-1")
    if code in (None, "tam") and _is_tscii(sample):
        return _advice("Tamil in TSCII or another 8-bit encoding")
    words = FontWords.of(sample)
    told = code is not None
    if code in (None, "tam") and words.are_tamil(told):
        return _advice("Tamil for a font such as Bamini")
    if code in (None, "sin") and words.are_sinhala(told):
        return _advice("Sinhala for a font such as FM-Abhaya")
    return None


def _advice(kind: str) -> str:
    return f"the texts look like {kind}, not Unicode, which the encoder cannot read: convert them"


def _beginning(texts: Iterable[str]) -> list[str]:
    sample = []
    length = 0
    for text in texts:
        sample.append(text[:MAX_CHARACTERS])
        length += len(text)
        if length > MAX_CHARACTERS:
            break
    return sample


def _is_zawgyi(texts: list[str]) -> bool:
    text = "\n".join(texts)
    wrong = len(ZAWGYI.findall(text))
    return wrong >= 2 and wrong >= 0.03 * len(BURMESE.findall(text))


def _is_misread_utf8(texts: list[str]) -> bool:
    """Whether most texts with accents are UTF-8 whose bytes were taken for characters."""
    accented = [text for text in texts if len(HIGH.findall(text)) >= 4]
    misread = sum(_as_utf8(text) is not None for text in accented)
    return misread > len(accented) / 2


def _as_utf8(text: str) -> str | None:
    for encoding in ("latin-1", "cp1252"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return None


def _is_tscii(texts: list[str]) -> bool:
    """Whether nearly all is accents and signs, which no language in Latin letters has."""
    text = "".join("".join(texts).split())
    return (
        len(text) >= 8
        and len(HIGH.findall(text)) >= 0.7 * len(text)
        and len(SIGNS.findall(text)) >= 0.2 * len(text)
    )


class FontWords(NamedTuple):
    """What the words of some texts look like, as shares of them.

    Attributes:
        number: of words that no code is in.
        code: words with signs of code, of all.
        english: English words, of all.
        marked: words with signs within them.
        signs: words with each of these signs within them.
        ended: words with a semicolon at the end.
        vowels: of the Latin letters, those that are vowels.
    """

    number: int
    code: float
    english: float
    marked: float
    signs: dict[str, float]
    ended: float
    vowels: float

    @classmethod
    def of(cls, texts: list[str]) -> "FontWords":
        """The figures of some texts."""
        words = []
        plain_words = []
        for word in " ".join(texts).split():
            word = word.rstrip("'\"")
            words.append(word)
            if not CODE.search(word) and LATIN_LETTER.search(word):
                plain_words.append(word)
        counts: Counter[str] = Counter()
        marked = 0
        ended = 0
        for word in plain_words:
            signs = set(MARK.findall(word))
            counts.update(signs)
            marked += bool(signs)
            ended += word.rstrip(".,").endswith(";")
        letters = LATIN_LETTER.findall("".join(plain_words))
        vowels = [letter for letter in letters if letter in "aeiouAEIOU"]
        number = len(plain_words)
        return cls(
            number=number,
            code=_share(sum(map(_has_code, words)), len(words)),
            english=_share(sum(map(_is_english, words)), len(words)),
            marked=_share(marked, number),
            signs={sign: _share(count, number) for sign, count in counts.items()},
            ended=_share(ended, number),
            vowels=_share(len(vowels), len(letters)),
        )

    def are_sinhala(self, told: bool) -> bool:
        """The signs of frequent letters (ත, ල, ග) are letters, and others are too.

        Args:
            told: that the texts are in Sinhala; fewer signs show it then.
        """
        frequent = sum(self.signs.get(sign, 0) >= 0.04 for sign in ";,.")
        return (
            self._could_be_a_font(told)
            and self.vowels <= MOST_VOWELS["sin"]
            and self.marked >= 0.25
            and frequent >= (1 if told else 2)
            and len(self.signs) >= (2 if told else 3)
        )

    def are_tamil(self, told: bool) -> bool:
        """The semicolon is the pulli, which stands on every third letter.

        Args:
            told: that the texts are in Tamil; fewer signs show it then.
        """
        return (
            self._could_be_a_font(told)
            and self.vowels <= MOST_VOWELS["tam"]
            and self.signs.get(";", 0) >= 0.35
            and self.ended >= 0.1
        )

    def _could_be_a_font(self, told: bool) -> bool:
        least = LEAST_WHERE_TOLD if told else LEAST_MARKED_WORDS
        return (
            self.code <= MOST_CODE
            and self.english <= MOST_ENGLISH
            and round(self.marked * self.number) >= least
        )


def _has_code(word: str) -> bool:
    return CODE.search(word) is not None


def _is_english(word: str) -> bool:
    bare = word.strip(".,;:")
    return bare.lower() in ENGLISH


def _share(count: int, total: int) -> float:
    if not total:
        return 0.0
    return count / total
