"""How many texts a run has read, and what happened to them on their way into the models."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palam.models.processing import PalamProcessor, TextStats
from palam.training.collator import Batch, Collator
from palam.training.datasets import Features

COUNTS = "counts"
"""What a batch has beside the model's arguments, until it is used."""
Counts = Counter[tuple[str, str, str]]
"""Numbers by reader (`encoder`, `llm`), language, and field of [`TextStats`]."""


class ReadTexts:
    """Collates batches, and counts the texts of those that are used.

    The processor counts all that it tokenises. The data loader lets it tokenise a batch ahead,
    which a run that is resumed reads again; so a batch's texts count here as it is used, and those
    of a resumed run are as many as of an uninterrupted one.

    Args:
        processor: that makes the features. What it has counted before stays.
    """

    def __init__(self, processor: PalamProcessor) -> None:
        self._collate = Collator(processor)
        self._stats = {"encoder": processor.stats, "llm": processor.llm_stats}
        self._before = _counts(self._stats)
        self._collated = self._before
        self._used: Counts = Counter()

    def __call__(self, rows: Sequence[Features]) -> Batch:
        """The batch of [`Collator`], and what was counted since the one before."""
        batch = self._collate(rows)
        counts = _counts(self._stats)
        batch[COUNTS] = counts - self._collated
        self._collated = counts
        return batch

    def use(self, batch: dict[str, Any]) -> None:
        """Count a batch's texts, and take the counts out of it."""
        self._used += batch.pop(COUNTS, Counter())

    def save(self, path: Path) -> None:
        """Write the counts of the batches that were used so far, as JSON."""
        path.write_text(json.dumps(_nested(self._used), indent=2) + "\n", encoding="utf-8")

    def load(self, path: Path) -> None:
        """Go on counting from what `save` wrote; without a file, of earlier versions, from none."""
        if not path.exists():
            return
        by_reader = json.loads(path.read_text(encoding="utf-8"))
        self._used = Counter()
        for reader, by_language in by_reader.items():
            for language, fields in by_language.items():
                for name, number in fields.items():
                    self._used[reader, language, name] = number

    def settle(self) -> None:
        """Let the processor's statistics be of what it had counted before, and of what was used."""
        totals = _nested(self._before + self._used)
        for reader, stats in self._stats.items():
            stats.clear()
            for language, fields in totals.get(reader, {}).items():
                stats[language] = TextStats(**fields)


def _counts(stats: Mapping[str, Mapping[str, TextStats]]) -> Counts:
    """A processor's statistics by reader and language, as numbers of their own."""
    counts: Counts = Counter()
    for reader, by_language in stats.items():
        for language, of_language in by_language.items():
            for name, number in asdict(of_language).items():
                counts[reader, language, name] = number
    return counts


def _nested(counts: Counts) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by reader, by language, by field."""
    nested: dict[str, dict[str, dict[str, int]]] = {}
    for (reader, language, name), number in counts.items():
        nested.setdefault(reader, {}).setdefault(language, {})[name] = number
    return nested
