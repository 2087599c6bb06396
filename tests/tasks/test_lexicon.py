"""Lexicons: read from any table, by language and by word."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palam import PalamError
from palam.tasks.lexicon import parts_of_word, read_lexicon
from palam.tasks.readers import RowSource

ROWS = [
    {"word": "house", "translation": "නිවස", "language": "Sinhala"},
    {"word": "water", "translation": "maji", "language": "Swahili", "score": 0.5},
    {"word": "House", "translation": "ගෙදර", "language": "Sinhala"},
    {"word": "house", "translation": "nyumba", "language": "Swahili"},
    {"word": "house", "translation": "nyumba", "language": "Swahili"},
]


def written(tmp_path, rows):
    path = tmp_path / "lexicon.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return RowSource(path)


def test_translations_are_found_by_language_and_by_word(tmp_path):
    lexicon = read_lexicon(written(tmp_path, ROWS))
    assert lexicon.by_language == {
        "Sinhala": {"house": ("නිවස", "ගෙදර")},
        "Swahili": {"water": ("maji",), "house": ("nyumba",)},
    }
    assert lexicon.by_word == {
        "house": (("නිවස", "ගෙදර"), ("nyumba",)),
        "water": (("maji",),),
    }
    assert lexicon.languages == ["Sinhala", "Swahili"]
    assert lexicon.weights == [1, 2**0.5]
    assert list(lexicon.pairs())[-1] == ("house", "nyumba", "Swahili")


def test_a_spreadsheet_is_read_as_well(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("language;translation;word\nTamil;வீடு;house\n", encoding="utf-8")
    assert read_lexicon(RowSource(path)).by_language == {"Tamil": {"house": ("வீடு",)}}


def test_a_languages_names_are_one_language(tmp_path):
    rows = []
    for number, language in enumerate(["SI", "si", "sin_Sinh", "Sinhala", "sinhala", "sr", "hr"]):
        rows.append({"word": f"w{number}", "translation": "ග", "language": language})
    lexicon = read_lexicon(written(tmp_path, [*rows, {**rows[0], "language": "Elvish"}]))
    assert lexicon.languages == ["SI", "sr", "hr", "Elvish"]
    assert list(lexicon.by_language["SI"]) == ["w0", "w1", "w2", "w3", "w4"]
    assert lexicon.weights == [5**0.5, 1, 1, 1]


def test_a_word_is_read_as_it_is_looked_up(tmp_path):
    rows = [
        {"word": "U.S.", "translation": "EE.UU.", "language": "es"},
        {"word": "(Cafe\u0301)", "translation": "cafetería", "language": "es"},
    ]
    lexicon = read_lexicon(written(tmp_path, rows))
    assert lexicon.by_language["es"] == {"u.s": ("EE.UU.",), "caf\u00e9": ("cafetería",)}


def test_pairs_that_a_text_never_has_as_one_word_are_counted_and_left_out(tmp_path):
    phrase = {"word": "ice cream", "translation": "අයිස්ක්‍රීම්", "language": "Sinhala"}
    sign = {"word": "...", "translation": "…", "language": "Greek"}
    notes = []
    lexicon = read_lexicon(written(tmp_path, [phrase, *ROWS, sign]), notes)
    assert lexicon == read_lexicon(written(tmp_path, ROWS))
    (note,) = notes
    assert note.endswith("lexicon.jsonl: 2 of 7 pairs are for no single word; they are not used")
    with pytest.raises(PalamError, match="holds no pair for a single word"):
        read_lexicon(written(tmp_path, [phrase, sign]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], {"word": "x", "translation": "y"}], 'line 2: .*"language"'),
        ([{**ROWS[0], "translation": "  "}], 'line 1: the column "translation" is empty'),
        ([{**ROWS[0], "word": ["house"]}], "line 1: "),
        ([], "holds no words"),
    ],
)
def test_what_is_missing_is_named(tmp_path, rows, message):
    with pytest.raises(PalamError, match=message):
        read_lexicon(written(tmp_path, rows))


def test_signs_around_a_word_are_not_of_it():
    assert parts_of_word('("water),') == ('("', "water", "),")
    assert parts_of_word("don't!") == ("", "don't", "!")
    assert parts_of_word("...") == ("...", "", "")
    assert parts_of_word("") == ("", "", "")


@pytest.mark.parametrize("word", ["පාසල්", "பள்ளி", "गाँव", "ቤት", "ပုံ"])
def test_vowel_signs_and_the_like_belong_to_a_word(word):
    assert parts_of_word(f"«{word}».") == ("«", word, "».")


def test_a_long_row_of_signs_takes_no_long_time():
    token = "a" + "-" * 200_000 + "b"
    assert parts_of_word(token) == ("", token, "")


@given(st.text())
def test_the_parts_are_the_whole(token):
    assert "".join(parts_of_word(token)) == token
