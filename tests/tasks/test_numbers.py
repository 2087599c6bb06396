"""The number that an answer comes to, as its language writes numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palam.tasks.numbers import last_number

WHOLE = st.integers(-(10**12), 10**12)
FRACTIONS = st.text("0123456789", min_size=1, max_size=6)
POINT_LANGUAGES = ["en", "zh", "ja", "th", "bn", "te", "sw", "hi", "si", None]
COMMA_LANGUAGES = ["de", "es", "fr", "ru", "pt-BR", "deu_Latn", "tr", "vi"]
DIGITS = {"bn": "০১২৩৪৫৬৭৮৯", "ar": "٠١٢٣٤٥٦٧٨٩", "fa": "۰۱۲۳۴۵۶۷۸۹", "th": "๐๑๒๓๔๕๖๗๘๙"}


@pytest.mark.parametrize(
    ("answer", "language", "number"),
    [
        ("Die Antwort ist 1.234.", "de", "1234"),
        ("La respuesta es 3,5.", "es", "3.5"),
        ("La réponse est 1 234.", "fr", "1234"),
        ("Es sind 1.234,50 Euro.", "de", "1234.5"),
        ("Die Antwort ist −5.", "de", "-5"),
        ("x = 9{,}500", None, "9500"),
        ("x = 3{,}5 kg", "de", "3.5"),
        (r"x = 1,\!000 or 2\,500", "en", "2500"),
        (r"x = 1,\!000", "en", "1000"),
        ("1,00,000 रुपये", "hi", "100000"),
        ("১,২৩৪.৫", "bn", "1234.5"),
        ("١٬٢٣٤٫٥", "ar", "1234.5"),
        ("１，２３４．５", "ja", "1234.5"),
        ("Das kostet 1'234.50 Fr.", "de-CH", "1234.5"),
        ("Il y en a 1’234’567.", "fr", "1234567"),
        ("Итого 1 234 567,89 ₽", "ru", "1234567.89"),
        ("En 2020 300 personnes", "fr", "300"),
        ("20,5 %", "de", "20.5"),
        ("−€ 5", "de", "-5"),
        ("-$1,234.50", "en", "-1234.5"),
        ("$5-$7", "en", "7"),
        ("10–15", "en", "15"),
        ("3,5", None, "3.5"),
        ("0,234", "en", "0.234"),
        ("1,2,3", "en", "3"),
        ("3.5,4.5", "en", "4.5"),
        ("am 12.05.2023", "de", "2023"),
        ("1.234.567", "en", "1234567"),
        ("1,234,567", "de", "1234567"),
        ("3.5", "de", "3.5"),
        ("1,234", "de", "1.234"),
        ("1.234", "en", "1.234"),
        ("So she has 1,234 and that is the answer.", "de", "1234"),  # answered in English
        ("Also hat The Beatles 1.234 Lieder.", "de", "1234"),
        ("It was 5.\n####", "en", "5"),
        ("-0", "en", "0"),
        ("9" * 5000, "en", "9" * 5000),
        ("1,234", "no such language", "1234"),
    ],
)
def test_numbers_as_languages_write_them(answer, language, number):
    assert last_number(answer, language) == number


@given(WHOLE, FRACTIONS, st.sampled_from(POINT_LANGUAGES))
def test_a_point_and_commas(whole, fraction, language):
    expected = str(whole)
    assert last_number(f"It is {whole:,}.", language) == expected
    assert last_number(f"#### {whole:,}", language) == expected
    if whole:
        decimal = f"{whole}.{fraction}".rstrip("0").rstrip(".")
        assert last_number(f"({whole:,}.{fraction})", language) == decimal


@given(
    WHOLE,
    FRACTIONS,
    st.sampled_from(COMMA_LANGUAGES),
    st.sampled_from([".", " ", "\xa0", "\u202f", "\u2009", "'", "’"]),
    st.sampled_from("-−–"),
)
def test_a_comma_and_other_signs_for_thousands(whole, fraction, language, group, minus):
    written = f"{whole:,}".replace(",", group).replace("-", minus)
    assert last_number(f"= {written}.", language) == str(whole)
    if whole:
        decimal = f"{whole}.{fraction}".rstrip("0").rstrip(".")
        assert last_number(f"= {written},{fraction} €", language) == decimal


@given(WHOLE, st.sampled_from(list(DIGITS)))
def test_digits_of_any_script(whole, language):
    digits = str(whole).translate(str.maketrans("0123456789", DIGITS[language]))
    assert last_number(f"= {digits}।", language) == str(whole)


@given(
    st.text(st.characters(exclude_characters="#")),
    st.sampled_from([*POINT_LANGUAGES, *COMMA_LANGUAGES]),
)
def test_any_text_has_a_number_or_none(text, language):
    number = last_number(text, language)
    assert number is None or float(number) is not None
    assert (number is None) == (not any(character.isdecimal() for character in text))


@given(st.text("0123456789.,' -−#\xa0"), st.sampled_from([*POINT_LANGUAGES, *COMMA_LANGUAGES]))
def test_signs_in_any_order(text, language):
    number = last_number(text, language)
    assert number is None or last_number(number, "en") == number
