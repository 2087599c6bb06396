"""What a training run reads, found and checked before any model is loaded."""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from palam.errors import PalamError
from palam.models.processing import IGNORE, TEXT_SLOT, PalamProcessor
from palam.tasks.loading import native_language, task_from_file, train_and_dev
from palam.tasks.readers import read_texts
from palam.tasks.registry import get_task
from palam.tasks.sampling import balanced, passage, sample
from palam.tasks.task import Task
from palam.training.config import TrainConfig


@dataclass
class TrainingData:
    """What a run reads: a task's examples; without a task, raw texts to continue."""

    task: Task | None
    train: list[Any]
    dev: list[Any]
    language: str
    note: str  # on the validation data

    def texts(self, rows: Sequence[Any], mode: str) -> list[str]:
        """What the encoder reads of these rows."""
        return [self.task.render(row, mode) for row in rows] if self.task else list(rows)


def read_training_data(settings: TrainConfig) -> TrainingData:
    """Load the training and validation data, before any model."""
    language = settings.language or "en"
    task: Task | None = None
    if settings.text is not None:
        lines = list(read_texts(settings.text))
        if len(lines) < 2:
            raise PalamError(f"{settings.text} holds fewer than two lines of text")
        held = max(1, min(len(lines) // 20, settings.max_eval_samples or len(lines)))
        train, dev, note = lines[:-held], lines[-held:], f"the last {held} of {len(lines)} lines"
        if settings.limit is not None and settings.limit < len(train):
            train = random.Random(settings.seed).sample(train, settings.limit)
        return TrainingData(None, train, dev, language, note)
    if settings.file is not None:
        columns = {"text_column": settings.text_column, "label_column": settings.label_column}
        task, rows = task_from_file(settings.file, prompt=settings.prompt, **columns)
        dev_rows = sample(rows, max(1, len(rows) // 10), settings.seed)
        held_rows = {example.row for example in dev_rows}
        train_rows = [example for example in rows if example.row not in held_rows]
        note = f"held out of {settings.file.name}: {len(dev_rows)} of {len(rows)} rows"
    else:
        task = get_task(str(settings.task))
        language = native_language(task, language, data_dir=settings.data)
        train_rows, dev_rows, note = train_and_dev(
            task, data_dir=settings.data, seed=settings.seed, language=language
        )
    if not train_rows:
        raise PalamError(
            "there is nothing to train on once validation rows are held out; give more rows"
        )
    dev_rows = sample(dev_rows, settings.max_eval_samples, settings.seed)
    train_rows = sample(train_rows, settings.limit, settings.seed)
    if task.balance if settings.balance is None else settings.balance:
        train_rows = balanced(train_rows, settings.seed)
    return TrainingData(task, train_rows, dev_rows, language, note)


def seeded_number(*key: object) -> int:
    """A large number that depends on the key alone: the same in a resumed run and in every process."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8], "big")


class AnswerDataset(Dataset[dict[str, Any]]):
    """Input → answer pairs, tokenised once (with `words`: once per epoch).

    Args:
        processor: makes the features.
        texts, answers: what is read and what is to be answered.
        languages: one code per text, or None.
        words: read a passage of whole sentences with at least so many words in place of each text, another one in
            every epoch; None is the text itself.
        seed: of the passages.
        direct: see [`PalamProcessor.features`].
    """

    def __init__(
        self, processor: PalamProcessor, texts: Sequence[str], answers: Sequence[str],
        languages: Sequence[str | None] | None = None, *, words: int | None = None, seed: int = 0, llm_only: bool = False,
    ) -> None:  # fmt: skip
        self.processor, self.texts, self.answers, self.languages = (
            processor,
            texts,
            answers,
            languages,
        )
        self.words, self.seed, self.llm_only = words, seed, llm_only
        self._read(0, count=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's passages."""
        if self.words is not None and epoch != self.epoch:
            self._read(epoch)

    def read(self) -> Sequence[str]:
        """What this epoch reads."""
        if self.words is None:
            return self.texts
        return [
            passage(text, self.words, seeded_number(self.seed, self.epoch, row))
            for row, text in enumerate(self.texts)
        ]

    def _read(self, epoch: int, count: bool = False) -> None:
        self.epoch = epoch
        self.rows = self.processor.features(
            self.read(), self.answers, self.languages, llm_only=self.llm_only, count=count
        )
        for index, row in enumerate(self.rows):
            row["row"] = index
        self.lengths = [
            len(row.get("encoder_input_ids", ())) + len(row["input_ids"]) for row in self.rows
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class PrefixDataset(Dataset[dict[str, Any]]):
    """Prefix language modelling on raw English (LangBridge): the encoder reads the first part, the LLM continues.

    A row's cut lies between two words and depends on seed, epoch and row alone.

    Args:
        processor: makes the features; its template is not used.
        texts: raw texts; those of fewer than two words are left out.
        seed: of the cuts.
        language: of the texts, for encoders that must be told.
        max_answer: most tokens that the LLM is to continue.
        distill: give each row `teacher_ids` too, with the first part as the LLM's own tokens.

    Attributes:
        asked: by row, the features of a question about the whole text, with its `teacher_ids`. They take the place of
            the continuation in two of three epochs, drawn like its cuts.
    """

    def __init__(
        self, processor: PalamProcessor, texts: Sequence[str], *, seed: int = 0, language: str | None = None,
        max_answer: int = 128, distill: bool = False,
    ) -> None:  # fmt: skip
        self.processor = processor
        self.distill = distill
        self.texts = [text.strip() for text in texts if len(text.split()) > 1]
        self.lengths = [len(text) for text in self.texts]
        self.seed = seed
        self.language = language
        self.max_answer = max_answer
        self.epoch = 0
        self.asked: dict[int, dict[str, Any]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's cuts."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.texts)

    def cut(self, index: int) -> tuple[str, str]:
        """The two parts of a row in this epoch; the second begins with its space."""
        places = [match.start() for match in re.finditer(r"\s+", self.texts[index])]
        place = places[seeded_number(self.seed, self.epoch, index) % len(places)]
        return self.texts[index][:place], self.texts[index][place:]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        asked = [
            i
            for i in indices
            if i in self.asked and seeded_number("ask", self.seed, self.epoch, i) % 3
        ]
        rows = {row["row"]: row for row in self._continued([i for i in indices if i not in asked])}
        rows |= {i: self.asked[i] for i in asked}
        return [rows[index] for index in indices]

    def _continued(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        parts = [self.cut(index) for index in indices]
        processor, tokenizer = self.processor, self.processor.encoder_tokenizer
        side, tokenizer.truncation_side = (
            tokenizer.truncation_side,
            "left",
        )  # a long text is read up to its cut
        encoded = processor.encode_texts(
            [first for first, _ in parts], [self.language] * len(parts)
        )
        tokenizer.truncation_side = side
        begin = [*processor.prefix_ids(), TEXT_SLOT]
        answers = [processor.continuation_ids(rest, self.max_answer) for _, rest in parts]
        skip = [IGNORE] * len(begin)
        rows = [
            {
                "encoder_input_ids": read["input_ids"],
                "input_ids": begin + answer,
                "labels": skip + answer,
                "row": index,
            }
            for index, read, answer in zip(indices, encoded, answers, strict=True)
        ]
        if self.distill:
            own = processor.features([first for first, _ in parts], llm_only=True)
            for row, text, answer in zip(rows, own, answers, strict=True):
                row["teacher_ids"] = text["input_ids"] + answer
        return rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]
