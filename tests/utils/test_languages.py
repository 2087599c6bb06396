import re

import pytest

from palam.utils.languages import (
    find_language,
    language_name,
    language_title,
    languages,
    resolve_language,
)


def test_the_table_is_well_formed():
    codes = [language.code for language in languages()]
    assert len(codes) == len(set(codes)) == 205
    for language in languages():
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", language.code)
        assert language.code[:3] == language.iso3
        assert language.iso1 is None or re.fullmatch(r"[a-z]{2}", language.iso1)
        assert language.name.strip() == language.name != ""
        assert language.script
    assert len({language.name for language in languages()}) == 205


def test_resources_and_what_xlmr_was_trained_on():
    high = {language.code for language in languages() if language.high_resource}
    assert len(high) == 26  # 25 languages, Chinese in two scripts
    assert {"eng_Latn", "hin_Deva", "vie_Latn", "zho_Hant"} <= high
    seen = {language.code for language in languages() if language.in_xlmr}
    assert high < seen
    assert {"sin_Sinh", "tam_Taml", "amh_Ethi", "swh_Latn", "khm_Khmr"} < seen - high
    assert not seen & {"bod_Tibt", "yor_Latn", "tir_Ethi", "ary_Arab", "bre_Latn"}


def test_only_scripts_of_one_language_share_a_code():
    owner = {}
    for language in languages():
        for code in (language.iso1, language.iso3, *language.aliases):
            if code:
                assert owner.setdefault(code, language.iso3) == language.iso3, code


def test_every_code_finds_its_own_row():
    for language in languages():
        assert find_language(language.code) is find_language(language.code.upper()) is language
        assert find_language(language.iso3).iso3 == language.iso3


@pytest.mark.parametrize(
    ("code", "expected"),
    {
        "si": "sin_Sinh",
        "SI": "sin_Sinh",
        "sin": "sin_Sinh",
        "SIN_sinh": "sin_Sinh",
        "sin-Sinh": "sin_Sinh",
        "ta": "tam_Taml",
        "am": "amh_Ethi",
        "zh": "zho_Hans",
        "zh-Hant": "zho_Hant",
        "cmn": "zho_Hans",
        "ar": "arb_Arab",
        "ara": "arb_Arab",
        "sw": "swh_Latn",
        "swa": "swh_Latn",
        "sr": "srp_Cyrl",
        "pa": "pan_Guru",
        "no": "nob_Latn",
        "nb": "nob_Latn",
        "nn": "nno_Latn",
        "ms": "zsm_Latn",
        "fa": "pes_Arab",
        "ne": "npi_Deva",
        "or": "ory_Orya",
        "uz": "uzn_Latn",
        "lv": "lvs_Latn",
        "ku": "kmr_Latn",
        "ace": "ace_Latn",
        "ks": "kas_Arab",
        "ak": "aka_Latn",
        "tw": "twi_Latn",
        "sat_Beng": "sat_Olck",
        "si-LK": "sin_Sinh",
        "sin_LK": "sin_Sinh",
        "si_lk": "sin_Sinh",
        "zh-CN": "zho_Hans",
        "zh-Hans": "zho_Hans",
        "zh-Hans-TW": "zho_Hans",
        "zh-TW": "zho_Hant",
        "zh_HK": "zho_Hant",
        "zh-MO": "zho_Hant",
        "zh-Hant-CN": "zho_Hant",
        "zh-yue-HK": "yue_Hant",
        "pt-BR": "por_Latn",
        "sr-Latn": "srp_Cyrl",
        "sr-Latn-RS": "srp_Cyrl",
        "en_US": "eng_Latn",
        "en_US.UTF-8": "eng_Latn",
        "de_DE@euro": "deu_Latn",
        "es-419": "spa_Latn",
        "sl-rozaj": "slv_Latn",
        "hi-u-nu-latn": "hin_Deva",
    }.items(),
)
def test_lookup(code, expected):
    assert find_language(code).code == expected


@pytest.mark.parametrize(
    "code", ["", "xx", "xx-LK", "sin_Latn", "si-Latn-LK", "english", "si-", "si-L"]
)
def test_an_unknown_code_is_no_language(code):
    assert find_language(code) is None
    assert language_name(code) == code
    assert language_title(code) == code
    assert resolve_language(code, ["si", "en"]) is None


def test_names():
    assert language_name("si") == language_name("sin_Sinh") == "Sinhala"
    assert language_name("ace_Arab") == "Acehnese (Arabic script)"
    assert language_title("si") == "Sinhala (si)"


@pytest.mark.parametrize(
    ("code", "available", "expected"),
    [
        ("si", ["eng_Latn", "sin_Sinh"], "sin_Sinh"),
        ("sin_Sinh", ["en", "si"], "si"),
        ("sw", ["swh_Latn"], "swh_Latn"),  # XNLI's code for NLLB
        ("swh_Latn", ["en", "sw"], "sw"),  # and back for M2M100
        ("EN", ["eng_Latn", "en"], "en"),  # the same but for case comes before the table
        ("zh", ["zho_Hant", "zho_Hans"], "zho_Hans"),
        ("zho_Hant", ["zh", "en"], None),  # another script is another language
        ("arb_Latn", ["arb_Arab"], None),
        ("sat_Olck", ["sat_Beng"], "sat_Beng"),  # NLLB's own name for it
        ("xq", ["xq"], "xq"),  # a code that the task alone knows
        ("no", ["nno_Latn", "nob_Latn"], "nob_Latn"),
        ("si", [], None),
        ("si-LK", ["en", "si"], "si"),
        ("pt-BR", ["pt-PT", "pt-BR"], "pt-BR"),
        ("si", ["en_US", "si_LK"], "si_LK"),
        ("zh-TW", ["zho_Hans", "zho_Hant"], "zho_Hant"),
        ("zh-TW", ["zh_CN", "zh_TW"], "zh_TW"),
    ],
)
def test_resolve(code, available, expected):
    assert resolve_language(code, available) == expected


def test_nllb_knows_all_but_three_of_them():
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    missing = {
        x.code for x in languages() if resolve_language(x.code, FAIRSEQ_LANGUAGE_CODES) is None
    }
    assert missing == {"arb_Latn", "min_Arab", "nqo_Nkoo"}


def test_all_but_two_codes_of_m2m100_are_in_the_table():
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    codes = FAIRSEQ_LANGUAGE_CODES["m2m100"]
    assert {code for code in codes if find_language(code) is None} == {"br", "fy"}
    assert all(
        resolve_language(find_language(code).code, codes) == code
        for code in codes
        if find_language(code)
    )
