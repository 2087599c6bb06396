"""How much of a text an English answer says: content-word recall, chrF, identification.

Content words are what a reader must have understood: neither function words, nor numbers and names,
nor words that stand in the source text itself. These can be copied without reading.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from palam.errors import PalamError
from palam.tasks.sampling import sentence_spans

FUNCTION_WORDS_FILE = Path(__file__).with_name("english_function_words.yaml")
WORD = re.compile(r"[^\W_]+")
"""A word, or the part of one on either side of an apostrophe or a hyphen."""
NUMBER = re.compile(r"\S*\d\S*")
"""What stands between spaces and holds a digit."""
RESAMPLES = 2000
"""Of the bootstrap; its seed is fixed."""


@cache
def function_words() -> frozenset[str]:
    """The lower-cased words that are no content words."""
    groups = yaml.safe_load(FUNCTION_WORDS_FILE.read_text(encoding="utf-8"))
    return frozenset(" ".join(groups.values()).split())


# ---------------------------------------------------------------------- words
def content_stems(english: str, source: str = "") -> frozenset[str]:
    """The stems of an English sentence's content words.

    Args:
        english: the sentence, or several.
        source: the text in another language that says the same. Words that it holds too, in any
            case, are left out: they can be copied.

    Raises:
        PalamError: snowballstemmer is not installed.
    """
    copied = {word.casefold() for word in WORD.findall(source)}
    left_out = function_words() | _names(english)
    words = set()
    for word in WORD.findall(english):
        has_digit = any(character.isdigit() for character in word)
        if not has_digit and word.lower() not in left_out and word.casefold() not in copied:
            words.add(word)
    return stems(words)


def _names(english: str) -> frozenset[str]:
    """The lower-cased words that are capitalised although not first in their sentence."""
    names: set[str] = set()
    for start, end in sentence_spans(english):
        _first, *others = WORD.findall(english[start:end]) or [""]
        names.update(word.lower() for word in others if word[0].isupper())
    return frozenset(names)


def stems(words: set[str] | Sequence[str]) -> frozenset[str]:
    """The English stems of words, in lower case.

    Raises:
        PalamError: snowballstemmer is not installed.
    """
    stemmer = _stemmer()
    return frozenset(stemmer.stemWord(word.lower()) for word in words)


@cache
def _stemmer() -> Any:
    try:
        import snowballstemmer
    except ImportError:
        raise PalamError(_missing("snowballstemmer")) from None
    return snowballstemmer.stemmer("english")


def _missing(package: str) -> str:
    return f'readings are measured with {package}: pip install "palam[reading]"'


def check_installed() -> None:
    """Refuse to measure readings, before any work, where a package is missing.

    Raises:
        PalamError: snowballstemmer or sacrebleu is not installed.
    """
    _stemmer()
    _chrf()


def content_word_recall(answer: str, english: str, source: str = "") -> float | None:
    """The share of a sentence's content words that an answer says, from 0 to 1.

    Args:
        answer: in English; all its words count, whatever else it says.
        english, source: see [`content_stems`].

    Returns:
        None where the sentence has no content word.

    Raises:
        PalamError: snowballstemmer is not installed.
    """
    wanted = content_stems(english, source)
    if not wanted:
        return None
    return len(wanted & stems(WORD.findall(answer))) / len(wanted)


def first_line(answer: str) -> str:
    """An answer up to its first line break: what an LLM adds after it is no longer the answer."""
    return answer.strip().partition("\n")[0].strip()


def says_one_of(answer: str, accepted: Sequence[str], wrong: Sequence[str] = ()) -> bool:
    """Whether an answer says one of the accepted answers: all its words, in any form and order.

    Args:
        answer: in English.
        accepted: of a word or more each; one without a word, such as `+`, is never said.
        wrong: answers of which it may say none.

    Raises:
        PalamError: snowballstemmer is not installed.
    """
    said = stems(WORD.findall(answer))

    def says(words: str) -> bool:
        wanted = stems(WORD.findall(words))
        return bool(wanted) and wanted <= said

    return any(map(says, accepted)) and not any(map(says, wrong))


def without_numbers(text: str) -> str:
    """The text without what holds a digit, and with single spaces."""
    return " ".join(NUMBER.sub(" ", text).split())


# ---------------------------------------------------------------------- chrF
def _chrf(**options: Any) -> Any:
    """sacrebleu's chrF2.

    Raises:
        PalamError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise PalamError(_missing("sacrebleu")) from None
    return CHRF(**options)


class EnglishSentences:
    """Sentences that answers are compared with by chrF.

    Args:
        sentences: in English, one at least.

    Raises:
        PalamError: sacrebleu is not installed.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = sentences
        self._plain = _chrf()
        # One document with as many references as there are sentences: the best of them counts.
        self._nearest = _chrf(references=[[sentence] for sentence in sentences])

    def chrf(self, answer: str, place: int) -> float:
        """chrF2 of an answer to one of the sentences, from 0 to 100.

        Args:
            answer: in English.
            place: the sentence's.
        """
        score: float = self._plain.sentence_score(answer, [self.sentences[place]]).score
        return score

    def identifies(self, answer: str, place: int) -> bool:
        """Whether no other sentence is nearer to an answer by chrF than its own.

        Args:
            answer: in English; one that has nothing in common with its sentence identifies none.
            place: the sentence's.
        """
        own = self.chrf(answer, place)
        nearest: float = self._nearest.corpus_score([answer], None).score
        return own > 0 and own >= nearest


class RowReading(NamedTuple):
    """How one text was read."""

    recall: float | None
    """Content-word recall, from 0 to 1; None where there is no content word."""
    chrf: float
    """chrF2, from 0 to 100."""
    identified: bool
    """Whether the text's own English sentence is the nearest to the answer."""


def row_readings(
    answers: Sequence[str], english: Sequence[str], sources: Sequence[str]
) -> list[RowReading]:
    """How each of some texts was read.

    Args:
        answers: to each text, in English.
        english: the English sentence of each text; an answer is to be nearest to its own of these.
        sources: the texts.

    Raises:
        PalamError: snowballstemmer or sacrebleu is not installed.
    """
    sentences = EnglishSentences(english)
    readings = []
    for place, (answer, sentence, source) in enumerate(zip(answers, english, sources, strict=True)):
        reading = RowReading(
            recall=content_word_recall(answer, sentence, source),
            chrf=sentences.chrf(answer, place),
            identified=sentences.identifies(answer, place),
        )
        readings.append(reading)
    return readings


# ---------------------------------------------------------------------- figures of many rows
@dataclass(frozen=True, kw_only=True)
class ReadingMetrics:
    """Means over the rows of one language; None is not measured."""

    recall: float | None
    """Mean content-word recall, from 0 to 1, of the rows that have content words."""
    ci95: tuple[float, float] | None
    """Its percentile bootstrap interval over rows."""
    chrf: float | None
    """Mean chrF2, from 0 to 100."""
    identified: float | None
    """Share of the rows whose own English sentence is the nearest to the answer."""
    likeliest: float | None
    """Share of the rows whose own English sentence the LLM finds the likeliest of those offered."""
    candidates: int | None
    """How many were offered to each row, at least: by chance it is the likeliest of so many."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "ReadingMetrics":
        """From rows with the names of these figures; a row may lack some."""
        recalls = _values(rows, "recall")
        candidates = _values(rows, "candidates")
        return cls(
            recall=_mean(recalls),
            ci95=bootstrap_interval(recalls) if recalls else None,
            chrf=_mean(_values(rows, "chrf")),
            identified=_mean(_values(rows, "identified")),
            likeliest=_mean(_values(rows, "likeliest")),
            candidates=int(min(candidates)) if candidates else None,
        )

    @classmethod
    def mean(cls, metrics: Sequence["ReadingMetrics"]) -> "ReadingMetrics":
        """The plain mean of several, such as languages, without an interval."""
        rows = [of_one.to_dict() for of_one in metrics]
        return replace(cls.of(rows), ci95=None)

    def to_dict(self) -> dict[str, Any]:
        """Those that were measured, by name."""
        figures = {
            "recall": self.recall,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "chrf": self.chrf,
            "identified": self.identified,
            "likeliest": self.likeliest,
            "candidates": self.candidates,
        }
        return {name: value for name, value in figures.items() if value is not None}


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def bootstrap_interval(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean of values from 0 to 1.

    Args:
        values: of the rows; with fewer than two, nothing is known, and it is from 0 to 1.
        resamples: how many are drawn, with a fixed seed.
    """
    if len(values) < 2:
        return 0.0, 1.0
    sample = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(sample), size=(resamples, len(sample)))
    low, high = np.percentile(sample[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)
