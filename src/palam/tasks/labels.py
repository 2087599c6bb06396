"""Labels as files have them: numbers of every kind, missing ones, and spellings of the same one."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
NO_ANSWER = frozenset({"", "-"})
"""How data sets write that a row has no gold label."""
NO_LABEL = NO_ANSWER | {"-1"}
"""The same, where the labels are no numbers to be worked out."""


def label_text(value: object) -> str:
    """A value of a label column as text; empty for what can be no label.

    Numbers are as Python writes them; what is no number and no text is no label. Letters that are
    written in parts are composed (NFC), as the LLM reads them.
    """
    if not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and math.isnan(value):
        return ""
    return unicodedata.normalize("NFC", str(value))


def without_fraction(text: str) -> str:
    """A whole number that is written with a fraction of zero, as pandas does, without it.

    >>> without_fraction("-1.0"), without_fraction("1.5"), without_fraction("v1.0")
    ('-1', '1.5', 'v1.0')
    """
    match = WHOLE_NUMBER.fullmatch(text)
    if match is None:
        return text
    return match[1]


def label_key(text: str) -> str:
    """The same for labels that differ only in case, in space, or in Unicode's normal form."""
    words = text.split()
    composed = unicodedata.normalize("NFC", " ".join(words))
    folded = composed.casefold()
    return unicodedata.normalize("NFC", folded)


def is_number(text: str) -> bool:
    """Whether a label is a number; such labels are not counted."""
    return NUMBER.fullmatch(text) is not None


def has_no_label(value: object, *, number: bool = False) -> bool:
    """Whether a value of a label column means that the row has no gold label.

    Args:
        value: missing (None, not a number), empty, `-` or -1, as a number or as text.
        number: the label is a number to be worked out, for which -1 is an answer like others.
    """
    if value is None:
        return True
    if not isinstance(value, str | int | float):
        return False
    missing = NO_ANSWER if number else NO_LABEL
    text = label_text(value).strip()
    return without_fraction(text) in missing


def labels_in(values: Iterable[object], *, merge: bool = False) -> list[str]:
    """The labels of a column as they first appear.

    Whole numbers that pandas wrote with a fraction (`1.0`) lose it, if all numbers are whole; `1`
    and `1.0` are one label in any case.

    Args:
        values: of the column; those without a gold label are left out.
        merge: of labels with the same [`label_key`], only the most frequent spelling is one; of
            equally frequent ones, the first.
    """
    counts = count_labels(values)
    if not merge:
        return list(counts)
    chosen: dict[str, str] = {}
    for label in counts:
        key = label_key(label)
        other = chosen.setdefault(key, label)
        if counts[label] > counts[other]:
            chosen[key] = label
    return list(chosen.values())


def count_labels(values: Iterable[object]) -> dict[str, int]:
    """How often each label is there, as they first appear; see [`labels_in`]."""
    counts: Counter[str] = Counter()
    for value in values:
        if not has_no_label(value):
            text = label_text(value)
            counts[text] += 1
    del counts[""]  # no label at all: a mistake, which is reported with its line
    has_fractions = any(_is_fraction(text) for text in counts)
    spelling: dict[str, str] = {}
    joined: Counter[str] = Counter()
    for text, count in counts.items():
        number = without_fraction(text)
        joined[spelling.setdefault(number, text) if has_fractions else number] += count
    return joined


def _is_fraction(text: str) -> bool:
    """Whether a label is a number that is not whole."""
    number = without_fraction(text)
    return is_number(number) and "." in number


def similar_labels(counts: Mapping[str, int]) -> list[list[str]]:
    """Groups of two or more labels that differ only in case or space."""
    groups: dict[str, list[str]] = {}
    for label in counts:
        groups.setdefault(label_key(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]
