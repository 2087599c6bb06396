"""The scripts that texts are written in, and the languages that a script alone tells."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from palam.utils.languages import languages

LOOKED_AT = 500
"""So many characters of a text are looked at."""
NO_SCRIPT = "no letters"
UNICODE_NAMES = {
    "CJK": "Han",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "NKO": "N'Ko",
    "OL": "Ol Chiki",
    "ORIYA": "Odia",
}
"""Scripts by the first word of their characters' names, where that is not their own name."""


def count_scripts(texts: Iterable[str]) -> dict[str, int]:
    """How many texts are mostly written in each script, the most frequent one first.

    A text without letters counts as `no letters`.
    """
    counts = Counter(script_of(text) for text in texts)
    return dict(counts.most_common())


def script_of(text: str) -> str:
    """The script of most of a text's letters, in Unicode's words: `Latin`, `Sinhala`.

    >>> script_of("ශ්‍රී ලංකා 2024"), script_of("2024")
    ('Sinhala', 'no letters')
    """
    counts = Counter(map(_script_of_letter, text[:LOOKED_AT]))
    del counts[""]
    if not counts:
        return NO_SCRIPT
    if counts["Kana"]:  # Japanese is written in both
        return "Japanese"
    ((script, _),) = counts.most_common(1)
    return script


@lru_cache(maxsize=65_536)
def _script_of_letter(character: str) -> str:
    """The script of a letter; empty for any other character."""
    if not character.isalpha():
        return ""
    first_word = unicodedata.name(character, "").partition(" ")[0]
    first_word = first_word.partition("-")[0]
    return UNICODE_NAMES.get(first_word, first_word.capitalize())


def language_of_script(script: str) -> str | None:
    """The name of the one language that is known to be written in a script; None of several."""
    names = set()
    for language in languages():
        if language.script == script:
            names.add(language.name)
    return names.pop() if len(names) == 1 else None
