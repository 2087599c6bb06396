"""Groups of languages, whose means a report shows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from palam.utils.languages import Language, find_language


class Group(NamedTuple):
    """Languages whose mean is shown."""

    name: str
    codes: list[str]


def language_groups(codes: Sequence[str]) -> list[Group]:
    """The groups whose means a report shows.

    First all but English (all, if there is English alone); then by script, by resources, and by
    XLM-R's training data, where both halves have languages.

    Args:
        codes: of the languages that were read.
    """
    english = find_language("en")
    unseen = [code for code in codes if find_language(code) != english] or list(codes)
    groups = [Group("mean without English", unseen)]
    groups += _halves(unseen, "Latin script", "other scripts", lambda x: x.script == "Latin")
    groups += _halves(unseen, "high-resource", "low-resource", lambda x: x.high_resource)
    xlmr = "in XLM-R's training data"
    groups += _halves(unseen, xlmr, f"not {xlmr}", lambda x: x.in_xlmr)
    return groups


def _halves(
    codes: Sequence[str], inside: str, outside: str, belongs: Callable[[Language], bool]
) -> list[Group]:
    """Two groups: languages for which something holds, and the others. None if one is empty.

    Args:
        codes: of languages; those that are not known are in no group.
        inside, outside: the groups' names.
        belongs: what holds.
    """
    groups = (Group(f"mean, {inside}", []), Group(f"mean, {outside}", []))
    for code in codes:
        language = find_language(code)
        if language is not None:
            group = groups[0] if belongs(language) else groups[1]
            group.codes.append(code)
    return list(groups) if all(group.codes for group in groups) else []
