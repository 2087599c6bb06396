"""Prefix language modelling."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from palam.models.processing import IGNORE, TEXT_SLOT
from palam.models.template import Template
from palam.training.datasets import Features, seeded_number
from palam.training.objectives.base import Objective, RawTexts


class Cut(NamedTuple):
    """A text in two parts."""

    beginning: str
    """What the encoder reads."""
    rest: str
    """What the LLM continues with; it begins with its space."""


class Continuation(Objective):
    """The encoder reads the beginning of a text and the LLM continues it (LangBridge).

    The cut lies between two words. No template is used.
    """

    def __init__(self, source: RawTexts) -> None:
        super().__init__(source)
        self.processor = source.processor.with_template(Template())

    def cut(self, index: int, epoch: int) -> Cut:
        """The two parts of a row in an epoch."""
        text = self.source.texts[index]
        spaces = [space.start() for space in re.finditer(r"\s+", text)]
        number = seeded_number(self.source.seed, epoch, index)
        place = spaces[number % len(spaces)]
        return Cut(text[:place], text[place:])

    def rows(self, indices: Sequence[int], epoch: int) -> list[Features]:
        """See [`Objective.rows`]."""
        source = self.source
        processor = self.processor
        cuts = [self.cut(index, epoch) for index in indices]
        beginnings = []
        for index, cut in zip(indices, cuts, strict=True):
            beginnings.append(self.noisy(cut.beginning, index, epoch))
        languages = [source.language] * len(cuts)
        with truncating_left(processor.encoder_tokenizer):  # a long text is read up to its cut
            encoded = processor.encode_texts(beginnings, languages)
        before = [*processor.prefix_ids(), TEXT_SLOT]
        rows = []
        for index, cut, tokens in zip(indices, cuts, encoded, strict=True):
            answer = processor.continuation_ids(cut.rest, source.max_answer)
            row: Features = {
                "encoder_input_ids": tokens["input_ids"],
                "input_ids": before + answer,
                "labels": [IGNORE] * len(before) + answer,
                "row": index,
            }
            rows.append(row)
        if source.distill:
            teacher_rows = processor.features([cut.beginning for cut in cuts], llm_only=True)
            for row, teacher_row in zip(rows, teacher_rows, strict=True):
                answer = row["input_ids"][len(before) :]
                row["teacher_ids"] = teacher_row["input_ids"] + answer
        return rows


@contextmanager
def truncating_left(tokenizer: Any) -> Iterator[None]:
    """Within the block, a tokenizer cuts long texts at their beginning."""
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"
    try:
        yield
    finally:
        tokenizer.truncation_side = side
