"""The order of rows: shuffled batches of similar length to train on, and whole batches for all.

Several processes read equally many batches. Where a batch is short, its other places are taken by
fillers: copies of a row without labels, which neither the loss nor the gradient sees.
"""

import random
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch.utils.data import Dataset, Sampler

from palam.models.processing import IGNORE
from palam.training.datasets import Features

POOL = 32
"""How many batches are sorted by length together: little padding, much shuffling."""


class FilledDataset(Dataset[Features]):
    """Rows of a dataset, and fillers, which have a negative index: `~row` is the filler of a row.

    Args:
        rows: a [`TrainingDataset`].
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """Several rows at once; the data loader calls it."""
        numbers = [max(index, ~index) for index in indices]
        if hasattr(self.rows, "__getitems__"):
            rows = self.rows.__getitems__(numbers)
        else:
            rows = [self.rows[number] for number in numbers]
        filled = []
        for index, row in zip(indices, rows, strict=True):
            if index < 0:
                row = {**row, "labels": [IGNORE] * len(row["labels"])}
            filled.append(row)
        return filled


class WholeBatches(Sampler[int]):
    """The rows of a dataset in order, and fillers up to a whole batch of all processes.

    Args:
        length: number of rows.
        batch_size: rows that all processes read at a time.
    """

    def __init__(self, length: int, batch_size: int) -> None:
        self.length = length
        self.batch_size = batch_size

    def __len__(self) -> int:
        return self.length + -self.length % self.batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(filled_up(list(range(self.length)), self.batch_size))


def filled_up(rows: list[int], batch_size: int) -> list[int]:
    """Rows in order, followed by fillers up to a multiple of the batch size."""
    num_fillers = -len(rows) % batch_size
    fillers = [~row for row in rows[-1:]] * num_fillers
    return rows + fillers


class HasLengths(Protocol):
    """Rows of known lengths; with a `set_epoch` too if they change with the epoch."""

    lengths: Sequence[int]
    """The length of each row, in any unit."""


class LengthGroupedSampler(Sampler[int]):
    """Shuffled batches of similar length.

    The order is a function of seed and epoch alone, so that a resumed run repeats it.

    Args:
        data: if it has `set_epoch`, it is told the epoch too.
        batch_size: rows of one optimiser step.
        seed: of the order.
        fill_to: the order is filled up to a multiple of so many rows; 1 adds no filler.
    """

    def __init__(self, data: HasLengths, batch_size: int, seed: int, fill_to: int = 1) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.fill_to = fill_to
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order.

        The data loader calls it; in the middle of an epoch it does not call the data's own.
        """
        self.epoch = epoch
        tell_data = getattr(self.data, "set_epoch", None)
        if tell_data is not None:
            tell_data(epoch)

    def __len__(self) -> int:
        num_rows = len(self.data.lengths)
        return num_rows + -num_rows % self.fill_to

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self.seed}/{self.epoch}")
        num_rows = len(self.data.lengths)
        order = array("q", range(num_rows))  # a list would take several times the memory
        generator.shuffle(order)
        self._sort_pools(order)
        size = self.batch_size
        num_full = num_rows // size
        batches = array("q", range(num_full))
        generator.shuffle(batches)
        for batch in batches:
            yield from order[size * batch : size * (batch + 1)]
        # At most one batch is short, and it goes last.
        yield from filled_up(order[size * num_full :].tolist(), self.fill_to)

    def _sort_pools(self, order: "array[int]") -> None:
        """Sort the rows by length within each pool of the order, the longest first."""
        lengths = self.data.lengths
        pool_size = self.batch_size * POOL
        for start in range(0, len(order), pool_size):
            pool = order[start : start + pool_size]
            by_length = sorted(pool, key=lambda row: -lengths[row])
            order[start : start + pool_size] = array("q", by_length)
