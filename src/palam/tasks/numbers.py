"""Numbers in answers, as the languages of the world write them."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from palam.utils.languages import find_language

COMMA_CODES = """
ace afr als ast azj bak ban bel bjn bos bug bul cat ces crh dan deu ell epo est eus fao fin fra fur
fuv glg hat hrv hun hye ind isl ita jav kab kat kaz kea kin kir kmr lao lij lim lin lit lmo ltg ltz
lvs min mkd nld nno nob oci pap pbt pol por ron run rus sag scn slk slv spa srd srp sun swe szl tat
tgk tuk tur ukr uzn vec vie wol
"""
DECIMAL_COMMA = frozenset(COMMA_CODES.split())
"""Languages (ISO 639-3) with a decimal comma, after CLDR; they part thousands by a full stop or a
space. All others have a decimal point, and part thousands by a comma."""
FREQUENT_WORDS = "the and answer each from she that their then there they this were with"
ENGLISH_WORDS = frozenset(FREQUENT_WORDS.split())
"""Frequent in English, and words of no other language in the Latin script."""
DECIMAL = "\u2396"
"""Stands for a sign that is a decimal separator in every language."""
GROUP = "'"
"""Stands for a sign that parts thousands in every language."""
MINUS_SIGNS = "\u2212\u2013\ufe63\uff0d"
"""Minus sign, en dash, and hyphens of other widths."""
CURRENCIES = "$\xa2-\xa5\u058f\u060b\u09f2\u09f3\u0e3f\u20a0-\u20c0"
BETWEEN_DIGITS = (
    (r",\\!", ","),  # LaTeX: 1,\!000
    (r"\{([.,])\}", r"\1"),  # LaTeX: 9{,}500
    (r"\\[,;: ]|[~\u2019\xa0\u2007-\u200a\u202f\u066c]", GROUP),
    ("\u066b", DECIMAL),
    ("[\uff0c\u060c]", ","),
    ("\uff0e", "."),
)
"""What may stand between the digits of a number, and what it is replaced by."""

FRACTION = rf"(?:[.,{DECIMAL}]\d+)?"
PLAIN = rf"\d+(?:[.,{DECIMAL}]\d+)*"
MINUS = re.compile(rf"(?<![\w)\]}}])-(?:[{CURRENCIES}]\s?)?$")
"""A minus sign in front of a number, no dash between two words or numbers."""


def last_number(text: str, language: str | None = None) -> str | None:
    """The number that an answer comes to: the one after `####`, else the last; None without one.

    It is read as the language writes numbers: which sign is decimal, and which parts thousands.
    Where that is plain from the number itself (`1.234,50`), or the answer is English whatever
    language was asked for, that counts. Digits may be of any script.

    Args:
        text: the answer.
        language: its code, of any kind that [`find_language`] knows; None is English.

    Returns:
        The number with a decimal point and without thousands separators, and without zeros at the
        end of its fraction.

    >>> last_number("She sold 48/2 = 24 clips.\\n#### 1,072.50")
    '1072.5'
    >>> last_number("It is 3 o'clock.")
    '3'
    >>> last_number("Es sind 1.234,50 Euro.", "de"), last_number("Il y en a 1 234.", "fr")
    ('1234.5', '1234')
    """
    has_comma = _has_decimal_comma(language or "en") and not _is_english(text)
    before, mark, final_answer = text.rpartition("####")
    if mark and final_answer.strip():
        return next(_numbers(final_answer, has_comma), None)
    last = None
    for number in _numbers(before or final_answer, has_comma):
        last = number
    return last


@cache
def _has_decimal_comma(language: str) -> bool:
    known = find_language(language)
    return known is not None and known.iso3 in DECIMAL_COMMA


def _is_english(text: str) -> bool:
    """Whether an answer is plainly in English: of its words, two and a tenth are such."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    english = sum(word in ENGLISH_WORDS for word in words)
    return english >= 2 and english >= len(words) / 10


def _numbers(text: str, has_comma: bool) -> Iterator[str]:
    """The numbers in a text, in order."""
    text = _with_plain_signs(text)
    pattern = _pattern(GROUP + " " if has_comma else GROUP)
    for match in pattern.finditer(text):
        sign = "-" if MINUS.search(text, max(0, match.start() - 4), match.start()) else ""
        if match["grouped"]:
            token = re.sub(rf"[{GROUP} ]", "", match[0])
            numbers = [re.sub(rf"[.,{DECIMAL}]", ".", token)]
        else:
            numbers = _parse(match[0], has_comma)
        for number in numbers:
            yield _normal(sign, number)
            sign = ""


@cache
def _pattern(group_signs: str) -> re.Pattern[str]:
    by_threes = rf"\d{{1,3}}(?P<by>[{group_signs}])\d{{3}}(?:(?P=by)\d{{3}})*"
    return re.compile(rf"(?<!\d)(?:(?P<grouped>{by_threes}{FRACTION}(?!\d))|{PLAIN})")


def _with_plain_signs(text: str) -> str:
    """The text with digits, minus signs and what stands between digits in few forms."""
    characters = []
    for character in text:
        if character.isdecimal():
            character = str(unicodedata.decimal(character))
        elif character in MINUS_SIGNS:
            character = "-"
        characters.append(character)
    text = "".join(characters)
    for pattern, replacement in BETWEEN_DIGITS:
        text = re.sub(rf"(?<=\d)(?:{pattern})(?=\d)", replacement, text)
    return text


def _parse(token: str, has_comma: bool) -> list[str]:
    """The number that digits with points and commas are; several where they can be no single one.

    Args:
        token: digits, with single points, commas and decimal signs between them.
        has_comma: whether the comma is the decimal sign where either could be.
    """
    group = "." if has_comma else ","
    signs = re.sub(r"\d", "", token)
    if not signs:
        return [token]
    last = signs[-1]
    whole, _, fraction = token.rpartition(last)
    if signs.count(last) == 1:
        others = set(signs[:-1])
        is_decimal = last != group or not _is_grouped(token, group)
        if not others and is_decimal:
            return [f"{whole}.{fraction}"]
        if len(others) == 1 and DECIMAL not in others and _is_grouped(whole, *others):
            return [f"{_digits(whole)}.{fraction}"]
    if len(set(signs)) == 1 and last != DECIMAL and _is_grouped(token, last):
        return [_digits(token)]
    parts = re.split(f"[{group}]", token)
    if len(parts) == 1:
        parts = re.split(rf"[.,{DECIMAL}]", token)
    numbers = []
    for part in parts:
        numbers.extend(_parse(part, has_comma))
    return numbers


def _is_grouped(token: str, sign: str) -> bool:
    """Whether digits are grouped by threes; or as in India, by twos in front of the last three."""
    if token.startswith("0"):
        return False
    by_threes = rf"\d{{1,3}}(?:{re.escape(sign)}\d{{3}})+"
    by_twos = rf"\d{{1,2}}(?:{re.escape(sign)}\d{{2}})*{re.escape(sign)}\d{{3}}"
    return bool(re.fullmatch(by_threes, token) or re.fullmatch(by_twos, token))


def _digits(token: str) -> str:
    return re.sub(r"\D", "", token)


def _normal(sign: str, number: str) -> str:
    """A number with a decimal point, without zeros at either end."""
    whole, _, fraction = number.partition(".")
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return digits if digits == "0" else sign + digits
