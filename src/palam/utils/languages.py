"""Language codes: the 205 FLORES/NLLB codes of SIB-200, and the ISO 639 codes that mean the same language.

The table is `languages.tsv`, one row a language in one script. Where an ISO code covers several rows
(`zh`, `ar`, `ace`), the first of them in the file is meant: the one that NLLB takes as the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Language:
    """One language in one script.

    `code` is FLORES' (`sin_Sinh`), `iso1` ISO 639-1 or None (`si`), `iso3` ISO 639-3 (`sin`), `aliases` other
    codes in use: of the macrolanguage (`swa` for `swh_Latn`), superseded ones, single models' own. `high_resource` are
    classes 4 and 5 of Joshi et al. (2020, arXiv 2004.09095); `in_xlmr` are the languages of XLM-R's training data
    (Conneau et al. 2020, arXiv 1911.02116), which multilingual E5's encoders began with too.
    """

    code: str
    iso1: str | None
    iso3: str
    language_name: str
    script: str
    high_resource: bool
    in_xlmr: bool
    aliases: tuple[str, ...] = ()


@cache
def languages() -> tuple[Language, ...]:
    """All languages of the table, in its order."""
    lines = (Path(__file__).parent / "languages.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return tuple(
        Language(
            code,
            iso1 or None,
            iso3,
            language_name,
            script,
            resources == "high",
            xlmr == "yes",
            tuple(aliases.split()),
        )
        for code, iso1, iso3, language_name, script, resources, xlmr, aliases in rows
    )


@cache
def _index() -> dict[str, Language]:
    index = {language.code.lower(): language for language in languages()}
    for language in languages():
        script = language.code[3:].lower()
        for alias in filter(None, (language.iso1, language.iso3, *language.aliases)):
            index.setdefault(alias.lower(), language)
            index.setdefault(alias.lower() + script, language)  # zh_Hant, sr-Cyrl
    return index


def find_language(code: str) -> Language | None:
    """The language that a FLORES, ISO 639-1 or ISO 639-3 code means, in any case; None if it is unknown."""
    return _index().get(code.strip().replace("-", "_").lower())


def resolve_language(code: str, available: Sequence[str]) -> str | None:
    """The one of the `available` codes that `code` means, as it is written there, or None.

    An exact match comes first, then the same in another case, then the same language in the same script
    through the table, in either direction: `si` finds `sin_Sinh`, and `swh_Latn` finds `sw`.
    """
    language = find_language(code)
    same_case = (other for other in available if other.lower() == code.lower())
    same_language = (other for other in available if language and find_language(other) == language)
    return code if code in available else next(same_case, None) or next(same_language, None)


def language_name(code: str) -> str:
    """The language's English name; an unknown code names itself."""
    return language.name if (language := find_language(code)) else code
