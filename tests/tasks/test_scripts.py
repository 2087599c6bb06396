"""The scripts of texts."""

import pytest

from palam.tasks.scripts import NO_SCRIPT, count_scripts, language_of_script, script_of


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("A letter, 3 pages", "Latin", None),
        ("ශ්‍රී ලංකා 2024", "Sinhala", "Sinhala"),
        ("தமிழ் நாடு, a", "Tamil", "Tamil"),
        ("日本語のテキスト", "Japanese", "Japanese"),
        ("你好", "Han", None),
        ("한국어", "Hangul", "Korean"),
        ("ଓଡ଼ିଆ", "Odia", "Odia"),
        ("ᱥᱟᱱᱛᱟᱲᱤ", "Ol Chiki", "Santali"),
        ("ߒߞߏ", "N'Ko", "N'Ko"),
        ("мир", "Cyrillic", None),
        ("2024 – 3.5 %", NO_SCRIPT, None),
        ("", NO_SCRIPT, None),
    ],
)
def test_a_texts_script_and_the_language_that_it_tells(text, script, language):
    assert script_of(text) == script
    assert language_of_script(script) == language


def test_the_most_frequent_script_comes_first():
    assert count_scripts(["a", "අ", "ආ"]) == {"Sinhala": 2, "Latin": 1}
