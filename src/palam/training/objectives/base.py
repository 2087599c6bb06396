"""What every objective shares: the texts, and how their rows are drawn."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from palam.models.processing import PalamProcessor
from palam.tasks.soft_labels import SoftAnswer
from palam.training.datasets import Features, seeded_number
from palam.training.noise import WordNoise


class LabelledText(NamedTuple):
    """A row of a task with labels."""

    text: str
    """As the encoder reads it."""
    prompt: str
    """The task's, with a `{text}` slot."""
    answer: str | SoftAnswer
    """The label's words; or those of several labels, of which one is drawn in each epoch."""
    passage_words: int | None = None
    """Of a longer text, a passage of at least so many words is read, another in each epoch."""


@dataclass
class RawTexts:
    """Raw texts, and what all objectives do with them alike."""

    processor: PalamProcessor
    """Makes the features. An objective has templates of its own."""
    texts: Sequence[str]
    """Of two words or more, without space at the ends."""
    seed: int = 0
    """Of what is drawn."""
    language: str | None = None
    """Of the texts, for encoders that must be told."""
    noise: WordNoise = field(default_factory=WordNoise)
    """On the encoder's side alone."""
    max_answer: int = 128
    """Most tokens that the LLM is to continue a text with."""
    distill: bool = False
    """Continue as the LLM does where it reads the beginning itself, not as the text does."""
    labelled: Sequence[LabelledText] = ()
    """Rows of tasks, which are learned in the place of some texts."""
    prompted: dict[int, Features] = field(default_factory=dict)
    """By row, the features of a prompt about the whole text and of the LLM's answer."""


class Objective(ABC):
    """Makes rows of raw texts; what it draws depends on seed, epoch and row alone.

    Args:
        source: the texts.
    """

    def __init__(self, source: RawTexts) -> None:
        self.source = source

    def noisy(self, text: str, index: int, epoch: int) -> str:
        """What the encoder reads of a row in an epoch, in place of this text."""
        number = seeded_number("noise", self.source.seed, epoch, index)
        return self.source.noise.applied(text, number)

    def asked(
        self,
        processors: Sequence[PalamProcessor],
        texts: Sequence[str],
        answers: Sequence[str],
        indices: Sequence[int],
        epoch: int,
    ) -> list[Features]:
        """The features of rows that the encoder reads with noise, each by its own processor.

        Args:
            processors: of each row; rows of the same one are made together.
            texts, answers: of each row.
            indices, epoch: the rows' numbers, and the epoch, from which the noise is drawn.
        """
        places_by_processor = defaultdict(list)
        for place, processor in enumerate(processors):
            places_by_processor[id(processor)].append(place)
        rows: list[Features] = [{} for _ in indices]
        for places in places_by_processor.values():
            noisy = [self.noisy(texts[place], indices[place], epoch) for place in places]
            own_answers = [answers[place] for place in places]
            languages = [self.source.language] * len(places)
            made = processors[places[0]].features(noisy, own_answers, languages)
            for place, row in zip(places, made, strict=True):
                rows[place] = {**row, "row": indices[place]}
        return rows

    def applies_to(self, index: int) -> bool:
        """Whether a row can be made of this text."""
        return True

    def length(self, index: int, epoch: int) -> int:
        """How long a row is, in characters that the LLM reads, to batch rows by."""
        return len(self.source.texts[index])

    @abstractmethod
    def rows(self, indices: Sequence[int], epoch: int) -> list[Features]:
        """The features of some texts in an epoch, in their order.

        Those with `teacher_ids` are learned from the LLM that reads these, see
        [`distillation_loss`]; the others by cross-entropy.
        """
