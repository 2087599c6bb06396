"""Training data: tokenised once, padded per batch, in an order that depends on seed and epoch alone."""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, Sampler

from palam.processor import IGNORE, TEXT_SLOT, PalamProcessor
from palam.tasks import passage

POOL = 32  # batches sorted by length together: little padding, much shuffling


def draw(*key: object) -> int:
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
        languages: Sequence[str | None] | None = None, *, words: int | None = None, seed: int = 0, direct: bool = False,
    ) -> None:  # fmt: skip
        self.processor, self.texts, self.answers, self.languages = processor, texts, answers, languages
        self.words, self.seed, self.direct = words, seed, direct
        self._read(0, count=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's passages."""
        if self.words is not None and epoch != self.epoch:
            self._read(epoch)

    def read(self) -> Sequence[str]:
        """What this epoch reads."""
        if self.words is None:
            return self.texts
        return [passage(text, self.words, draw(self.seed, self.epoch, row)) for row, text in enumerate(self.texts)]

    def _read(self, epoch: int, count: bool = False) -> None:
        self.epoch = epoch
        self.rows = self.processor.features(self.read(), self.answers, self.languages, direct=self.direct, count=count)
        for index, row in enumerate(self.rows):
            row["row"] = index
        self.lengths = [len(row.get("encoder_input_ids", ())) + len(row["input_ids"]) for row in self.rows]

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
        place = places[draw(self.seed, self.epoch, index) % len(places)]
        return self.texts[index][:place], self.texts[index][place:]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        asked = [i for i in indices if i in self.asked and draw("ask", self.seed, self.epoch, i) % 3]
        rows = {row["row"]: row for row in self._continued([i for i in indices if i not in asked])}
        rows |= {i: self.asked[i] for i in asked}
        return [rows[index] for index in indices]

    def _continued(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        parts = [self.cut(index) for index in indices]
        processor, tokenizer = self.processor, self.processor.encoder_tokenizer
        side, tokenizer.truncation_side = tokenizer.truncation_side, "left"  # a long text is read up to its cut
        encoded = processor.encode_texts([first for first, _ in parts], [self.language] * len(parts))
        tokenizer.truncation_side = side
        begin = [*processor.prefix_ids(), TEXT_SLOT]
        answers = [processor.continuation_ids(rest, self.max_answer) for _, rest in parts]
        skip = [IGNORE] * len(begin)
        rows = [
            {"encoder_input_ids": read["input_ids"], "input_ids": begin + answer, "labels": skip + answer, "row": index}
            for index, read, answer in zip(indices, encoded, answers, strict=True)
        ]
        if self.distill:
            own = processor.features([first for first, _ in parts], direct=True)
            for row, text, answer in zip(rows, own, answers, strict=True):
                row["teacher_ids"] = text["input_ids"] + answer
        return rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]


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
        short = [batch for batch in batches if len(batch) < self.batch_size]  # at most one, and it goes last
        full = [batch for batch in batches if len(batch) == self.batch_size]
        generator.shuffle(full)
        return iter([row for batch in full + short for row in batch])
