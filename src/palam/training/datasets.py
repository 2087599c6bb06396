"""A run's rows, tokenised once and kept as arrays."""

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from palam.models.processing import PalamProcessor
from palam.tasks.sampling import passage
from palam.tasks.soft_labels import SoftAnswer, answer_in_epoch
from palam.training.noise import NO_NOISE, WordNoise
from palam.training.token_table import RaggedArray, TokenTable, batched
from palam.utils.processes import on_main

Features = dict[str, Any]
"""A row's unpadded lists, as [`PalamProcessor.features`] gives them, and its number as `row`."""
CHUNK_ROWS = 4096
"""So many rows are tokenised at a time."""


def seeded_number(*key: object) -> int:
    """A large number that depends on the key alone: the same in every process and resumed run."""
    text = "/".join(map(str, key))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big")


class TrainingDataset(Dataset[Features], ABC):
    """Tokenised rows, which may be other ones in each epoch.

    Attributes:
        lengths: of the rows, to batch them by.
        epoch: whose rows they are.
    """

    lengths: Sequence[int]
    epoch: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's rows."""

    @abstractmethod
    def content(self) -> Iterator[tuple[str | None, ...]]:
        """Row by row what it was made of, the same in every epoch."""

    @abstractmethod
    def repeated_encoder_ids(self) -> RaggedArray | None:
        """The encoder's token ids of the texts that it reads again in every epoch, if any."""


@dataclass(frozen=True)
class TextChanges:
    """What is read of each text in place of it, something else in every epoch."""

    passage_words: int | None = None
    """A passage of whole sentences with at least so many words; None is the whole text."""
    noise: WordNoise = NO_NOISE
    """On what is read."""

    @property
    def any(self) -> bool:
        """Whether anything changes."""
        return self.passage_words is not None or self.noise.changes

    def applied(self, text: str, *key: object) -> str:
        """What is read of a text.

        Args:
            text: any.
            *key: seed, epoch and row: the same ones give the same.
        """
        if self.passage_words is not None:
            text = passage(text, self.passage_words, seeded_number(*key))
        if self.noise.changes:
            text = self.noise.applied(text, seeded_number("noise", *key))
        return text


UNCHANGED = TextChanges()


class AnswerDataset(TrainingDataset):
    """Input → answer pairs, tokenised a chunk at a time: once, or what changes once an epoch.

    Args:
        processor: makes the features.
        texts: what is read.
        answers: what is to be answered to each; of a soft answer, one is drawn in every epoch.
        languages: one code per text, or None.
        changes: of the texts, in every epoch.
        seed: of the changes and of the answers that are drawn.
        llm_only: see [`PalamProcessor.features`].
        folder: where the tokens are kept, memory-mapped; None is in memory. Several processes need
            one: the first of them tokenises, and only it needs texts and answers.
    """

    def __init__(
        self,
        processor: PalamProcessor,
        texts: Sequence[str],
        answers: Sequence[str | SoftAnswer],
        languages: Sequence[str | None] | None = None,
        *,
        changes: TextChanges = UNCHANGED,
        seed: int = 0,
        llm_only: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.processor = processor
        self.texts = texts
        self.answers = answers
        self.languages = languages
        self.changes = changes
        self.seed = seed
        self.llm_only = llm_only
        self.folder = folder
        has_soft_answers = any(isinstance(answer, SoftAnswer) for answer in answers)
        self.is_drawn = changes.any or has_soft_answers
        self._tokenize(0, count=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's texts and answers."""
        if self.is_drawn and epoch != self.epoch:
            self._tokenize(epoch, count=False)

    def current_texts(self, rows: Sequence[int], *, noise: bool = True) -> Sequence[str]:
        """What is read of these rows in this epoch.

        Args:
            rows: their numbers.
            noise: False leaves the words as they are.
        """
        changes = self.changes if noise else replace(self.changes, noise=NO_NOISE)
        texts = []
        for row in rows:
            texts.append(changes.applied(self.texts[row], self.seed, self.epoch, row))
        return texts

    def current_answers(self, rows: Sequence[int]) -> Sequence[str]:
        """What is to be answered to these rows in this epoch."""
        answers = []
        for row in rows:
            number = seeded_number("answer", self.seed, self.epoch, row)
            answers.append(answer_in_epoch(self.answers[row], number))
        return answers

    def content(self) -> Iterator[tuple[str | None, ...]]:
        """See [`TrainingDataset.content`]: text, answer and language."""
        languages = self.languages or repeat(None, len(self.texts))
        for text, answer, language in zip(self.texts, self.answers, languages, strict=True):
            yield text, str(answer), language
        yield from self.changes.noise.content()

    def repeated_encoder_ids(self) -> RaggedArray | None:
        """See [`TrainingDataset.repeated_encoder_ids`]; none if they change."""
        if self.changes.any:
            return None
        return self.rows.encoder_input_ids

    def _tokenize(self, epoch: int, *, count: bool) -> None:
        """Make the epoch's rows; `count` adds them to the processor's statistics."""
        self.epoch = epoch
        if self.folder is None:
            self.rows = TokenTable.build(self._chunks(count))
        else:
            folder = self.folder / f"epoch-{epoch}"
            on_main(lambda: self._write_rows(folder, count))
            self.rows = TokenTable.open(folder)
        self.lengths: Any = self.rows.lengths()

    def _write_rows(self, folder: Path, count: bool) -> None:
        """Make the epoch's rows, in place of another epoch's."""
        for other in folder.parent.glob("epoch-*"):
            shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True)
        TokenTable.build(self._chunks(count), folder)

    def _chunks(self, count: bool) -> Iterator[list[Features]]:
        for rows in batched(range(len(self.texts)), CHUNK_ROWS):
            languages = self.languages
            if languages is not None:
                languages = [languages[row] for row in rows]
            yield self.processor.features(
                self.current_texts(rows),
                self.current_answers(rows),
                languages,
                llm_only=self.llm_only,
                count=count,
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Features:
        return {**self.rows[index], "row": index}
