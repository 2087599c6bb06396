"""TODO palam.tasks.sampling."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, cycle, islice

from palam.errors import PalamError
from palam.tasks.task import Example

SENTENCE_END = re.compile(r"""(?<=[.!?])\s+|(?<=[.!?]["')\]])\s+|\n+""")


def passage(text: str, words: int, number: int) -> str:
    """Whole sentences from the text, in order: the first is the one `number` falls on, the last completes `words`."""
    ends = list(SENTENCE_END.finditer(text))
    bounds = list(
        zip([0, *(m.end() for m in ends)], [*(m.start() for m in ends), len(text)], strict=True)
    )
    total = [0, *accumulate(len(text[start:end].split()) for start, end in bounds)]
    firsts = [i for i in range(len(bounds)) if total[-1] - total[i] >= words] or [
        0
    ]  # enough must follow
    first = firsts[number % len(firsts)]
    last = next(
        (i for i in range(first, len(bounds)) if total[i + 1] - total[first] >= words),
        len(bounds) - 1,
    )
    return text[bounds[first][0] : bounds[last][1]]


def sample(examples: Sequence[Example], limit: int | None, seed: int = 0) -> list[Example]:
    """`limit` examples drawn by `seed`, each label's share within one row of its exact share, in their order.

    Parallel languages give the same rows. None, or a limit of at least all rows, gives all.
    """
    if limit is not None and limit < 1:
        raise PalamError(f"a limit of {limit} rows is too few: 1 at least")
    if limit is None or limit >= len(examples):
        return list(examples)
    rows: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        rows[example.label].append(index)
    generator = random.Random(seed)
    labels = sorted(rows)
    generator.shuffle(labels)  # decides between equal remainders
    share = {label: divmod(limit * len(rows[label]), len(examples)) for label in labels}
    left = limit - sum(whole for whole, _ in share.values())
    more = set(sorted(labels, key=lambda label: -share[label][1])[:left])
    chosen = [
        i
        for label in labels
        for i in generator.sample(rows[label], share[label][0] + (label in more))
    ]
    return [examples[index] for index in sorted(chosen)]


def balanced(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """As many examples as there are, equally many of each label: of a rare one each is taken several times."""
    rows: dict[str, list[Example]] = defaultdict(list)
    for example in random.Random(seed).sample(list(examples), len(examples)):
        rows[example.label].append(example)
    each = -(-len(examples) // max(1, len(rows)))
    return [example for some in rows.values() for example in islice(cycle(some), each)]
