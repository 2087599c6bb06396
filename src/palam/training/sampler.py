"""The order of training rows: shuffled batches of similar length."""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch.utils.data import Sampler

POOL = 32
"""How many batches are sorted by length together: little padding, much shuffling."""


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
    """

    def __init__(self, data: HasLengths, batch_size: int, seed: int) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
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
        return len(self.data.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self.seed}/{self.epoch}")
        order = list(range(len(self)))
        generator.shuffle(order)
        batches = self._batches(order)
        full = [batch for batch in batches if len(batch) == self.batch_size]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        generator.shuffle(full)
        # At most one batch is short, and it goes last.
        return iter([row for batch in full + short for row in batch])

    def _batches(self, order: list[int]) -> list[list[int]]:
        """Rows in batches: sorted by length within each pool of the order, the longest first."""
        lengths = self.data.lengths
        pool_size = self.batch_size * POOL
        batches = []
        for pool in _slices(order, pool_size):
            pool.sort(key=lambda row: -lengths[row])
            batches.extend(_slices(pool, self.batch_size))
        return batches


def _slices(rows: list[int], size: int) -> list[list[int]]:
    """Rows in order, so many together; the last slice may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
