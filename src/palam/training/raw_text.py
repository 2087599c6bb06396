"""A run's rows of raw text, each made when it is read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palam.models.processing import PalamProcessor
from palam.tasks.sampling import weighted_place
from palam.training.datasets import Features, TrainingDataset, seeded_number
from palam.training.objectives.base import RawTexts
from palam.training.objectives.registry import DEFAULT_WEIGHTS, OBJECTIVES


def is_learned(text: str) -> bool:
    """Whether a raw text is long enough to learn from: of two words or more."""
    return len(text.split()) > 1


class RawTextDataset(TrainingDataset):
    """Raw English text, of which each row is for one of several objectives in an epoch.

    Which one is drawn by their weights, from seed, epoch and text alone. A text to which none
    applies is no row.

    Args:
        processor: makes the features.
        texts: raw texts; those that [`is_learned`] refuses are left out.
        objectives: weights of [`OBJECTIVES`] by name; None is `DEFAULT_WEIGHTS`.
        **shared: the other fields of [`RawTexts`], such as `seed`, `language` and `noise`.

    Attributes:
        texts: those that are learned from. The objectives know them by their numbers.
        numbers: of the texts that are rows, row by row.
    """

    def __init__(
        self,
        processor: PalamProcessor,
        texts: Sequence[str],
        *,
        objectives: Mapping[str, float] | None = None,
        **shared: Any,
    ) -> None:
        self.texts = [text.strip() for text in texts if is_learned(text)]
        self.source = RawTexts(processor, self.texts, **shared)
        self.weights = dict(objectives or DEFAULT_WEIGHTS)
        self.objectives = {name: OBJECTIVES.lookup(name)(self.source) for name in self.weights}
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's rows. Those of answers to prompts are there once the answers are."""
        self.epoch = epoch
        self.numbers = []
        self.lengths = []
        for number in range(len(self.texts)):
            if self._applying(number):
                objective = self.objectives[self.objective_of(number)]
                self.numbers.append(number)
                self.lengths.append(objective.length(number, epoch))

    def content(self) -> Iterator[tuple[str | None, ...]]:
        """See [`TrainingDataset.content`]: text and language, the labelled rows, the
        lexicon."""
        for text in self.texts:
            yield text, self.source.language
        for row in self.source.labelled:
            yield row.text, row.prompt, str(row.answer)
        yield from self.source.noise.content()

    def repeated_encoder_ids(self) -> None:
        """None: see [`TrainingDataset.repeated_encoder_ids`]."""

    def objective_of(self, number: int) -> str:
        """The name of the objective that a text is for in this epoch; one at least applies to it.

        Args:
            number: of the text.
        """
        names = self._applying(number)
        weights = [self.weights[name] for name in names]
        drawn = seeded_number("objective", self.source.seed, self.epoch, number)
        return names[weighted_place(weights, drawn)]

    def _applying(self, number: int) -> list[str]:
        """The names of the objectives that apply to a text."""
        names = []
        for name, objective in self.objectives.items():
            if objective.applies_to(number):
                names.append(name)
        return names

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Features:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """Several rows at once; the data loader calls it."""
        numbers = [self.numbers[index] for index in indices]
        by_objective: dict[str, list[int]] = {}
        for number in numbers:
            by_objective.setdefault(self.objective_of(number), []).append(number)
        rows: dict[int, Features] = {}
        for name, own_numbers in by_objective.items():
            made = self.objectives[name].rows(own_numbers, self.epoch)
            rows.update(zip(own_numbers, made, strict=True))
        return [rows[number] for number in numbers]
