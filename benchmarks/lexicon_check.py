"""How good is a lexicon? Its words in parallel sentences: no bridge, and no language learned from.

SIB-200's sentences are the same in 205 languages. Where a word of a foreign sentence stands in the
lexicon, the English word that it translates stands in the English sentence of the same row, if the
pair is right and the translator chose that word. How often it stands in the other rows' sentences
is what chance gives::

    python benchmarks/lexicon_check.py lexicon.jsonl --data DIR --languages si,ta,hi,sw,am,fr
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from palam.inference.reading_metrics import stems
from palam.tasks.lexicon import Lexicon, parts_of_word, read_lexicon
from palam.tasks.loading import load_split
from palam.tasks.readers import RowSource
from palam.tasks.registry import get_task
from palam.tasks.scripts import script_of

ENGLISH = "en"


class Check(NamedTuple):
    """A language's figures, in shares of 1."""

    covered: float
    """Of the language's words, those that the lexicon has."""
    parallel: float
    """Of these, those whose English word stands in the English sentence of the same row."""
    by_chance: float
    """And in another row's, in the mean over the other rows."""


def english_by_translation(lexicon: Lexicon) -> dict[str, dict[str, set[str]]]:
    """By script and translation, in small letters, the English words."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for word, translation, script in lexicon.pairs():
        found[script][translation.lower()].add(word)
    return found


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    words = [parts_of_word(token)[1].lower() for token in text.split()]
    return [word for word in words if word]


def check(
    texts: Sequence[str], english: Sequence[str], words: Mapping[str, Mapping[str, set[str]]]
) -> Check:
    """Look for the English words of a language's words.

    Args:
        texts: of the language.
        english: the same texts in English.
        words: of [`english_by_translation`].
    """
    english_stems = [stems(words_of(text)) for text in english]
    num_words = 0
    num_covered = 0
    num_parallel = 0
    by_chance = 0.0
    for row, text in enumerate(texts):
        for word in words_of(text):
            num_words += 1
            of_word = words.get(script_of(word), {}).get(word)
            if not of_word:
                continue
            num_covered += 1
            wanted = stems(of_word)
            stands = [bool(wanted & sentence) for sentence in english_stems]
            num_parallel += stands[row]
            by_chance += (sum(stands) - stands[row]) / (len(stands) - 1)
    covered = max(1, num_covered)
    return Check(num_covered / max(1, num_words), num_parallel / covered, by_chance / covered)


def texts_in(language: str, folder: Path) -> list[str]:
    """The development texts of SIB-200 in a language."""
    task = get_task("sib200")
    return [row.fields["text"] for row in load_split(task, "dev", language, data_dir=folder)]


def main() -> None:
    """Check a lexicon in some languages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lexicon", type=Path, help="of `palam lexicon`")
    parser.add_argument("--data", type=Path, required=True, help="the folder with sib200")
    parser.add_argument("--languages", default="si,ta,hi,sw,am,fr", help="by commas")
    options = parser.parse_args()
    words = english_by_translation(read_lexicon(RowSource(options.lexicon)))
    english = texts_in(ENGLISH, options.data)
    print("| | words in the lexicon, % | English word in the same row, % | in another row, % |")
    print("|---|--:|--:|--:|")
    for language in options.languages.split(","):
        figures = check(texts_in(language, options.data), english, words)
        row = " | ".join(f"{100 * share:.0f}" for share in figures)
        print(f"| {language} | {row} |")


if __name__ == "__main__":
    main()
