"""Choosing examples: a stratified sample, equally many of each label, a passage of a long text."""

import hashlib
import math
import random
import re
from array import array
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, compress, cycle, islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from palam.errors import PalamError
from palam.tasks.labels import label_key
from palam.tasks.task import Example

DRAWS = 2**64
"""How many numbers there are from which [`weighted_place`] chooses."""
SENTENCE_END = re.compile(r"""(?<=[.!?])\s+|(?<=[.!?]["')\]])\s+|\n+""")
"""The white space between two sentences."""


class HasFields(Protocol):
    """A text, in parts that have names."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The parts."""


TextRow = TypeVar("TextRow", bound=HasFields)


def sample(examples: Sequence[Example], max_samples: int | None, seed: int = 0) -> list[Example]:
    """A random sample with the same shares of labels.

    Each label's count is within one row of its exact share. Rows of parallel languages with the
    same labels give the same sample.

    Args:
        examples: to draw from, without replacement.
        max_samples: how many; None, or as many as there are, gives all.
        seed: of the draw.

    Returns:
        The sample, in the order of `examples`.

    Raises:
        PalamError: fewer than one.
    """
    if max_samples is not None and max_samples < 1:
        raise PalamError(f"a limit of {max_samples} rows is too few: 1 at least")
    if max_samples is None or max_samples >= len(examples):
        return list(examples)
    indices: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        indices[example.label].append(index)
    generator = random.Random(seed)
    labels = sorted(indices)
    generator.shuffle(labels)  # decides between equal remainders
    sizes = {label: len(indices[label]) for label in labels}
    counts = _proportional_counts(sizes, max_samples)
    chosen: list[int] = []
    for label in labels:
        chosen.extend(generator.sample(indices[label], counts[label]))
    return [examples[index] for index in sorted(chosen)]


def _proportional_counts(sizes: dict[str, int], total: int) -> dict[str, int]:
    """`total` shared out in proportion to `sizes`, by the largest remainders.

    Of equal remainders, those that come first in `sizes` are rounded up.
    """
    size_of_all = sum(sizes.values())
    counts = {}
    remainders = {}
    for label, size in sizes.items():
        counts[label], remainders[label] = divmod(total * size, size_of_all)
    missing = total - sum(counts.values())
    by_remainder = sorted(sizes, key=lambda label: remainders[label], reverse=True)
    for label in by_remainder[:missing]:
        counts[label] += 1
    return counts


class HeldOut(NamedTuple):
    """Examples in two parts that have no text in common.

    Attributes:
        train: the examples that are left to train on, most of all.
        dev: the examples that are held out.
        num_repeated: rows whose text stands in another row too.
    """

    train: list[Example]
    dev: list[Example]
    num_repeated: int

    @property
    def note(self) -> str:
        """What is to be said of repeated texts; empty without any."""
        if not self.num_repeated:
            return ""
        return f"{self.num_repeated} rows repeat a text, and each text is on one side"


def a_tenth(examples: Sequence[Example]) -> int:
    """How many rows are for validation where none are given for it: one at least."""
    return max(1, round(len(examples) / 10))


def hold_out(examples: Sequence[Example], num_rows: int, seed: int = 0) -> HeldOut:
    """Hold a label-stratified sample out, with all the rows of each of its texts.

    Args:
        examples: to draw from.
        num_rows: how many to hold out; where texts are repeated, about as many.
        seed: of the draw.

    Returns:
        Both parts in the order of `examples`; without repeated texts, `dev` is what [`sample`]
        draws.

    Raises:
        PalamError: fewer than two different texts.
    """
    digests = text_digests(examples)
    texts, first_rows, counts = np.unique(digests, return_index=True, return_counts=True)
    if len(texts) < 2:
        raise PalamError(f"{len(examples)} rows with one text are too few to hold some out")
    representatives = [examples[row] for row in np.sort(first_rows)]
    num_texts = num_rows * len(texts) // len(examples)
    drawn = sample(representatives, max(1, num_texts), seed)
    is_held_out = np.isin(digests, text_digests(drawn))
    train = list(compress(examples, ~is_held_out))
    dev = list(compress(examples, is_held_out))
    return HeldOut(train, dev, num_repeated=int(counts[counts > 1].sum()))


def text_key(example: HasFields) -> tuple[str, ...]:
    """The same for examples whose texts differ at most in case, space and normal form."""
    return tuple(label_key(text) for text in example.fields.values())


def text_digests(examples: Iterable[HasFields]) -> npt.NDArray[np.uint64]:
    """A number for the text of each example, see [`text_key`]; eight bytes, also of a long text."""
    return digests_of("\0".join(text_key(example)) for example in examples)


def digests_of(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """A number for each text; those of different texts are different, but for one in 10¹⁹ pairs."""
    numbers = array("Q")
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
        numbers.append(int.from_bytes(digest.digest(), "little"))
    return np.array(numbers, np.uint64)


def num_shared(train: Sequence[Example], dev: Sequence[Example]) -> int:
    """How many rows of `dev` have a text that is among those of `train`."""
    return int(np.isin(text_digests(dev), text_digests(train)).sum())


def with_other_texts(rows: Sequence[TextRow], held_out: Iterable[Example]) -> list[TextRow]:
    """Those of some rows whose texts are not held out; see [`text_key`].

    Args:
        rows: in any order.
        held_out: examples with the same fields.
    """
    is_held_out = np.isin(text_digests(rows), text_digests(held_out))
    return list(compress(rows, ~is_held_out))


def balanced(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """About as many examples as there are, equally many of each label.

    Examples of a rare label are repeated, each as often as the others of its label, or once more.

    Args:
        examples: to draw from.
        seed: of which ones are repeated or left out.

    Returns:
        The examples, label after label; of each label, the number of examples divided by the number
        of labels, rounded up.
    """
    shuffled = random.Random(seed).sample(list(examples), len(examples))
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in shuffled:
        by_label[example.label].append(example)
    if not by_label:
        return []
    rows_per_label = math.ceil(len(examples) / len(by_label))
    chosen: list[Example] = []
    for label_examples in by_label.values():
        chosen.extend(islice(cycle(label_examples), rows_per_label))
    return chosen


class Span(NamedTuple):
    """A part of a text: the characters from `start` to before `end`."""

    start: int
    end: int


def weighted_place(weights: Sequence[float], number: int) -> int:
    """Choose a place, each as often as its weight says.

    Args:
        weights: of the places, at least one above 0.
        number: below 2⁶⁴; where it is uniform, so is the choice within the weights.
    """
    bounds = list(accumulate(weights))
    place = bisect(bounds, number / DRAWS * bounds[-1])
    return min(place, len(bounds) - 1)


def passage(text: str, words: int, number: int) -> str:
    """Whole sentences from a text, in order, as it has them.

    Args:
        text: of any length.
        words: how many words at least; the last sentence is the one that completes them. Of a text
            with fewer words, all of it is taken.
        number: chooses the first sentence, among those that enough words follow; any number.
    """
    sentences = sentence_spans(text)
    lengths = [len(text[start:end].split()) for start, end in sentences]
    words_before = [0, *accumulate(lengths)]
    words_in_text = words_before[-1]
    starts = []
    for index, count in enumerate(words_before[:-1]):
        if words_in_text - count >= words:
            starts.append(index)
    first = starts[number % len(starts)] if starts else 0
    for last in range(first, len(sentences)):
        if words_before[last + 1] - words_before[first] >= words:
            break
    return text[sentences[first].start : sentences[last].end]


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a text, without the white space between them; one for an empty text."""
    spans = []
    start = 0
    for match in SENTENCE_END.finditer(text):
        spans.append(Span(start, match.start()))
        start = match.end()
    spans.append(Span(start, len(text)))
    return spans
