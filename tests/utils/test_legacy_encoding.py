"""Texts for fonts and encodings of before Unicode are told, and no others."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from palam.utils.legacy_encoding import legacy_encoding

DEMO = Path(str(files("palam.tasks"))) / "demo"
# The demonstration's sentences, as they were written before Unicode.
FM_ABHAYA = [
    "fodaI iys; uhsfl%dpsmhla ksid Èh;a lsrSug fmr pkao%sldj h<s ie,iqï lsrSug bxðfkarejkag isÿ.",
    "f.da, relj,aldßh o~qjï myr folla je<elajQ w;r wef.a iudch lqi,dkh Èkd .;af;ah'",
    "tu kjl;dj m%isoaO wOHlaIjrhlq úiska ps;%mghla njg m;a lrkq we;'",
]
BAMINI = [
    "gOjhd xU Ez;rpy;Y fhuzkhf> VTtjw;F Kd;G nraw;iff;Nfhis kWtbtikf;f Ntz;ba fl;lhak;.",
    "Nfhy;fPg;gu; ,uz;L ngdhy;bfisj; jLj;jhu;> mtuJ fpsg; mzp Nfhg;igia ntd;wJ.",
    "me;j ehtiyg; gpugy ,af;Feu; xUtu; jpiug;glkhf vLf;f cs;shu;.",
]
TSCII = [
    "ÀØ¾¡É ´Õ Ññº¢øÖ ¸¡Ã½Á¡¸, ²×Å¾üÌ ÓýÒ ¦ºÂü¨¸ì§¸¡¨Ç ÁÚÅÊÅ¨Áì¸ §ÅñÊÂ ¸ð¼¡Âõ.",
    "§¸¡ø¸£ôÀ÷ þÃñÎ ¦ÀÉ¡øÊ¸¨Çò ¾Îò¾¡÷, «ÅÃÐ ¸¢Çô «½¢ §¸¡ô¨À¨Â ¦ÅýÈÐ.",
]
ZAWGYI = [
    "ဂိုးသမားက ပင္နယ္တီႏွစ္လုံးကို ကာကြယ္ႏိုင္ခဲ့ၿပီး သူမ၏အသင္းက ဖလားကို ဆြတ္ခူးခဲ့သည္။",
    "ထိုဝတၳဳကို နာမည္ႀကီး ဒါ႐ိုက္တာတစ္ဦးက ႐ုပ္ရွင္အျဖစ္ ႐ိုက္ကူးမည္ျဖစ္သည္။",
]
LEGACY = {
    "FM-Abhaya": (FM_ABHAYA, "si", "Sinhala for a font such as FM-Abhaya"),
    "Bamini": (BAMINI, "ta", "Tamil for a font such as Bamini"),
    "TSCII": (TSCII, "tam_Taml", "Tamil in TSCII or another 8-bit encoding"),
    "Zawgyi": (ZAWGYI, "my-MM", "Burmese in Zawgyi"),
}


@pytest.mark.parametrize(("texts", "language", "kind"), LEGACY.values(), ids=LEGACY)
def test_legacy_encodings_are_told_in_one_line(texts, language, kind):
    line = legacy_encoding(texts)
    assert line == (
        f"the texts look like {kind}, not Unicode, which the encoder cannot read: convert them"
    )
    assert legacy_encoding(iter(texts), language) == line
    assert legacy_encoding(texts[:1], language) == line
    assert legacy_encoding(texts, "hi") is None
    assert legacy_encoding(
        [*texts, *["A sentence in English, as there are many."] * 50]
    ) is None or (kind == "Burmese in Zawgyi")


def test_a_short_text_is_told_where_the_language_is():
    assert "FM-Abhaya" in legacy_encoding(["Y%S ,xldj"], "si")
    assert legacy_encoding(["Y%S ,xldj"]) is None


def test_utf8_that_was_read_as_latin1():
    for language in ("si", "fr", None):
        texts = ["සිංහල භාෂාව", "été à Noël, œuvre"]
        misread = [text.encode().decode("latin-1") for text in texts]
        assert "UTF-8 that was read as Latin-1" in legacy_encoding(misread, language)


OTHERS = {
    "English": [
        "Dr. No, i.e. the film; it was good.",
        "e.g., yes; no.",
        "U.S. troops vs. U.N. men",
    ],
    "accents": ["Ça été à Noël où l'œuvre fût créée", "Größenwahn äöü ÄÖÜ", "þæð öll íslenska"],
    "addresses": ["https://www.example.com/a.b?c=d;e", "me@example.com", "www.a.com, b.org; c.net"],
    "code": [
        "for(i=0;i<n;i++){a[i]=b%c;}",
        "x.y.z = f(a,b); return;",
        "if a<b and c>d: print(x,y)",
    ],
    "tags": ["action;drama;comedy", "drama;thriller;", "sports;news;health;travel;"],
    "lists": ["a,b,c", "red|green|blue", "one;two;three"],
    "mark-up": ["<b>bold</b>&nbsp;text", "**a**_b_[c](d)", "\\frac{a}{b}, \\alpha;"],
    "transliteration": ["mama gedara yanawa.", "naan veettukku pokiren;", "kohomada, hondada?"],
    "nothing": ["", " ", "7", "?!"],
}


@pytest.mark.parametrize("texts", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("language", [None, "en", "si", "ta", "my"])
def test_other_texts_are_no_legacy_encoding(texts, language):
    assert legacy_encoding(texts, language) is None
    for text in texts:
        assert legacy_encoding([text], language) is None


@pytest.mark.parametrize("path", sorted(DEMO.glob("*.jsonl")), ids=lambda path: path.name)
def test_unicode_in_every_script_is_no_legacy_encoding(path):
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    code = path.name.split(".")[1]
    assert legacy_encoding(texts) is None
    for text in texts:
        assert legacy_encoding([text]) is None
        assert legacy_encoding([text], code) is None


def test_the_projects_own_code_is_no_legacy_encoding():
    for path in Path(str(files("palam"))).rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert legacy_encoding(line for line in lines if "%S" not in line) is None
