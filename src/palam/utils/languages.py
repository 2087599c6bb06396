"""Language codes: the 205 FLORES/NLLB codes of SIB-200, and ISO 639 codes of the same languages.

Tags with a region (`si-LK`) are understood too.

The table is `languages.tsv`, one row a language in one script. Where an ISO code covers several
rows (`zh`, `ar`, `ace`), the first of them in the file is meant: NLLB's default. A language that is
written in two scripts, but that no model tells apart by them, has one row (`sr-Latn`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("languages.tsv")
TAG = re.compile(
    r"(?P<language>[a-z]{2,3})"
    r"(_(?P<extended>[a-z]{3}))?"
    r"(_(?P<script>[a-z]{4}))?"
    r"(_(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(_([a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants: sl_rozaj
    r"(_[a-z0-9](_[a-z0-9]{2,8})+)*"  # extensions: hi_u_nu_latn
    r"([.@].*)?"  # a locale's encoding: en_US.UTF-8
)
"""A tag of BCP 47, in lower case and with underscores."""
TRADITIONAL_CHINESE = ("tw", "hk", "mo")
"""Regions where Chinese is written in traditional characters."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language in one script.

    Attributes:
        code: FLORES' code, `sin_Sinh`.
        iso1: ISO 639-1, `si`, or None.
        iso3: ISO 639-3, `sin`.
        name: in English.
        script: in English, as Unicode names it.
        high_resource: classes 4 and 5 of Joshi et al. (2020, arXiv 2004.09095).
        in_xlmr: one of XLM-R's training languages (Conneau et al. 2020, arXiv 1911.02116), from
            which the encoders of multilingual E5 were initialised too.
        aliases: other codes in use: the macrolanguage's (`swa` for `swh_Latn`), superseded ones,
            single models' own.
    """

    code: str
    iso1: str | None
    iso3: str
    name: str
    script: str
    high_resource: bool
    in_xlmr: bool
    aliases: tuple[str, ...] = ()


@cache
def languages() -> tuple[Language, ...]:
    """All languages of the table, in its order."""
    _header, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    return tuple(_parse_row(line) for line in lines)


def _parse_row(line: str) -> Language:
    """The language of one row of the table."""
    code, iso1, iso3, name, script, resources, in_xlmr, aliases = line.split("\t")
    return Language(
        code=code,
        iso1=iso1 or None,
        iso3=iso3,
        name=name,
        script=script,
        high_resource=resources == "high",
        in_xlmr=in_xlmr == "yes",
        aliases=tuple(aliases.split()),
    )


@cache
def _by_code() -> dict[str, Language]:
    """Languages by every code that means them, in lower case; of two, the first in the table."""
    index = {language.code.lower(): language for language in languages()}
    for language in languages():
        script_suffix = language.code[3:].lower()
        for code in (language.iso1, language.iso3, *language.aliases):
            if code:
                index.setdefault(code.lower(), language)
                index.setdefault(code.lower() + script_suffix, language)  # zh_Hant, sr-Cyrl
    return index


def find_language(code: str) -> Language | None:
    """The language that a code means, in any case, with hyphens or underscores.

    A FLORES, ISO 639-1 or ISO 639-3 code, or a tag of BCP 47 as systems and browsers write it: its
    script is kept (`zh-Hans-CN`), its region left out (`si-LK`, `pt_BR`, `en_US.UTF-8`), except
    that Chinese of Taiwan, Hong Kong and Macau is in traditional characters.

    Returns:
        None for an unknown code, and for a script that the table does not have.
    """
    tag = code.strip().replace("-", "_").lower()
    return _by_code().get(tag) or _by_code().get(_without_region(tag))


def _without_region(tag: str) -> str:
    """The language and script of a tag; empty if it is none."""
    match = TAG.fullmatch(tag)
    if match is None:
        return ""
    language = match["extended"] or match["language"]
    script = match["script"]
    is_chinese = language in ("zh", "zho", "cmn")
    if is_chinese and script is None and match["region"] in TRADITIONAL_CHINESE:
        script = "hant"
    return f"{language}_{script}" if script else language


def resolve_language(code: str, available: Sequence[str]) -> str | None:
    """The one of the `available` codes that `code` means, as it is written there, or None.

    An exact match comes first, then the same in another case, then the same language in the same
    script through the table, in either direction: `si` matches `sin_Sinh`, `swh_Latn` matches `sw`.
    """
    if code in available:
        return code
    for candidate in available:
        if candidate.lower() == code.lower():
            return candidate
    language = find_language(code)
    if language is None:
        return None
    for candidate in available:
        if find_language(candidate) == language:
            return candidate
    return None


def language_name(code: str) -> str:
    """The language's English name; for an unknown code the code."""
    language = find_language(code)
    return code if language is None else language.name


def language_title(code: str) -> str:
    """The language's English name with its code; for an unknown code the code."""
    language = find_language(code)
    return code if language is None else f"{language.name} ({code})"
