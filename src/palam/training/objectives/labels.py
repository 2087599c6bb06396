"""The labels of tasks, asked for by the tasks' own prompts."""

from collections.abc import Sequence

from palam.tasks.sampling import passage
from palam.tasks.soft_labels import answer_in_epoch
from palam.training.datasets import Features, seeded_number
from palam.training.objectives.base import LabelledText, Objective, RawTexts


class Labels(Objective):
    """Answer with the label of an English text of a task that has labels.

    The rows are those of the tasks, not the raw texts: in each epoch one is drawn in the place of a
    raw text. So the objective's weight says how many rows are for it, however large the tasks are.
    """

    def __init__(self, source: RawTexts) -> None:
        super().__init__(source)
        processor = source.processor
        self._processors = {}
        for prompt in dict.fromkeys(row.prompt for row in source.labelled):
            asking = processor.template.asking(prompt, processor.llm_tokenizer)
            self._processors[prompt] = processor.with_template(asking)

    def applies_to(self, index: int) -> bool:
        """See [`Objective.applies_to`]: every row, if there are labelled texts."""
        return bool(self.source.labelled)

    def length(self, index: int, epoch: int) -> int:
        """See [`Objective.length`]."""
        row = self._drawn(index, epoch)
        text = self._text(row, index, epoch)
        return len(text) + len(row.prompt) + len(self._answer(row, index, epoch))

    def rows(self, indices: Sequence[int], epoch: int) -> list[Features]:
        """See [`Objective.rows`]."""
        drawn = [self._drawn(index, epoch) for index in indices]
        texts = []
        for row, index in zip(drawn, indices, strict=True):
            texts.append(self._text(row, index, epoch))
        processors = [self._processors[row.prompt] for row in drawn]
        answers = []
        for row, index in zip(drawn, indices, strict=True):
            answers.append(self._answer(row, index, epoch))
        return self.asked(processors, texts, answers, indices, epoch)

    def _text(self, row: LabelledText, index: int, epoch: int) -> str:
        """A labelled row's text, or a passage of it."""
        if row.passage_words is None:
            return row.text
        number = seeded_number("passage", self.source.seed, epoch, index)
        return passage(row.text, row.passage_words, number)

    def _answer(self, row: LabelledText, index: int, epoch: int) -> str:
        """What is to be answered to a labelled row in an epoch."""
        number = seeded_number("answer", self.source.seed, epoch, index)
        return answer_in_epoch(row.answer, number)

    def _drawn(self, index: int, epoch: int) -> LabelledText:
        """The labelled text in the place of a row in an epoch."""
        number = seeded_number("label", self.source.seed, epoch, index)
        return self.source.labelled[number % len(self.source.labelled)]
