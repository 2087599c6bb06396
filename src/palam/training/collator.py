"""TODO palam.training.collator."""

from collections.abc import Sequence
from typing import Any

from palam.models.processing import IGNORE, PalamProcessor


class Collator:
    """Pads features, names their rows, and says at how many last positions logits are wanted."""

    def __init__(self, processor: PalamProcessor) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One batch for [`PalamModel`]."""
        answers = max(sum(label != IGNORE for label in row["labels"]) for row in rows)
        teacher = [{"input_ids": row["teacher_ids"]} for row in rows if "teacher_ids" in row]
        return {
            **self.processor.pad(rows),
            **({"teacher": dict(self.processor.pad(teacher))} if teacher else {}),
            "logits_to_keep": answers + 1,
            "rows": [row["row"] for row in rows],
        }
