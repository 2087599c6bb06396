"""From rows of features to a batch."""

from collections.abc import Sequence
from typing import Any

from palam.models.processing import PalamProcessor, count_labels
from palam.training.datasets import Features

Batch = dict[str, Any]
"""The arguments of [`PalamModel`]'s forward pass, and what only the trainer takes."""


class Collator:
    """Pads features, names their rows, and says at how many last positions logits are needed.

    Args:
        processor: that made the features.
    """

    def __init__(self, processor: PalamProcessor) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[Features]) -> Batch:
        """One batch for [`PalamModel`].

        Args:
            rows: of a [`TrainingDataset`].

        Returns:
            The padded features; `logits_to_keep`, the longest answer's length and one; `rows`, the
            rows' numbers. If some rows are distilled, also `teacher`, what the LLM reads by itself
            of these, padded, and `taught`, their places in the batch.
        """
        batch: Batch = dict(self.processor.pad(rows))
        answer_lengths = [count_labels(row["labels"]) for row in rows]
        batch["logits_to_keep"] = max(answer_lengths) + 1
        batch["rows"] = [row["row"] for row in rows]
        teacher_rows = []
        taught = []
        for place, row in enumerate(rows):
            if "teacher_ids" in row:
                teacher_rows.append({"input_ids": row["teacher_ids"]})
                taught.append(place)
        if teacher_rows:
            batch["teacher"] = dict(self.processor.pad(teacher_rows))
            batch["taught"] = taught
        return batch
