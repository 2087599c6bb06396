"""TODO palam.training.sampler."""

import random
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

POOL = 32  # batches sorted by length together: little padding, much shuffling


class LengthGroupedSampler(Sampler[int]):
    """Shuffled batches of similar length; the order is a function of seed and epoch, so a resumed run repeats it.

    Args:
        data: with the `lengths` of its rows, in any unit. If it has `set_epoch`, it is told the epoch too.
        batch_size: rows of one optimiser step.
        seed: of the order.
    """

    def __init__(self, data: Any, batch_size: int, seed: int) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; the data loader calls it, and (in the middle of an epoch) not the data's own."""
        self.epoch = epoch
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.data.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self.seed}/{self.epoch}")
        lengths = self.data.lengths
        order = list(range(len(lengths)))
        generator.shuffle(order)
        pool = self.batch_size * POOL
        batches = []
        for first in range(0, len(order), pool):
            rows = sorted(order[first : first + pool], key=lambda i: -lengths[i])
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        short = [
            batch for batch in batches if len(batch) < self.batch_size
        ]  # at most one, and it goes last
        full = [batch for batch in batches if len(batch) == self.batch_size]
        generator.shuffle(full)
        return iter([row for batch in full + short for row in batch])
