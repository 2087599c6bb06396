"""The LLM's own answers to prompts about the text."""

from collections.abc import Sequence

from palam.training.datasets import Features
from palam.training.objectives.base import Objective


class Answers(Objective):
    """Answer a prompt about the text as the LLM does that reads the text itself."""

    def applies_to(self, index: int) -> bool:
        """See [`Objective.applies_to`]: texts whose prompt the LLM has answered."""
        return index in self.source.prompted

    def rows(self, indices: Sequence[int], epoch: int) -> list[Features]:
        """See [`Objective.rows`]; the same in each epoch."""
        return [self.source.prompted[index] for index in indices]
