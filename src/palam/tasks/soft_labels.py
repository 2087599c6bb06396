"""Texts with a probability for each label, as `palam classify` writes them: what others learn from.

A bridge that learns from them is a pupil of the bridges that gave them (distillation, Hinton et
al., arXiv 1503.02531). A label is drawn by its probability whenever a text is learned; in the mean
over the draws, the cross-entropy is that of the probabilities.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from palam.errors import PalamError
from palam.tasks.columns import PREFIX
from palam.tasks.formats import Row
from palam.tasks.label_scores import SCORES, normalised
from palam.tasks.readers import RowSource, text_of
from palam.tasks.sampling import weighted_place
from palam.tasks.task import Task

PLAIN_COLUMN = "text"
"""The column of a line of plain text."""


@dataclass(frozen=True)
class SoftAnswer:
    """Answers of which one is drawn whenever a text is learned."""

    answers: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of each; together they are 1."""

    def __str__(self) -> str:
        """All of it, as what tells one run's rows from another's."""
        parts = zip(self.answers, self.probabilities, strict=True)
        return " ".join(f"{answer!r}:{probability:.6f}" for answer, probability in parts)

    def drawn(self, number: int) -> str:
        """The answer that a number below 2⁶⁴ chooses, each as often as its probability says."""
        return self.answers[weighted_place(self.probabilities, number)]


def answer_in_epoch(answer: str | SoftAnswer, number: int) -> str:
    """The answer itself, or the one that a number below 2⁶⁴ draws."""
    return answer if isinstance(answer, str) else answer.drawn(number)


@dataclass(frozen=True)
class SoftlyLabelled:
    """A text and the probabilities of its answers."""

    fields: dict[str, str]
    """Its text columns by the task's fields."""
    answer: SoftAnswer


def read_soft_labels(
    source: RowSource, columns: Mapping[str, str], task: Task | None = None
) -> Iterator[SoftlyLabelled]:
    """Read what `palam classify` wrote.

    Args:
        source: rows with texts and, for each label, a log-probability (in an object `scores`) or
            (in a table, in a column of its own) a probability. Rows without them, which could not
            be read, are left out.
        columns: the text columns by the task's fields. A single one that a row does not have is its
            column `text`, as lines of plain text have it.
        task: whose labels they are; None is any labels, each its own words, in `scores` alone.

    Raises:
        PalamError: a row that lacks a text or a label, a label that is none of the task's, or a
            value that is no log-probability; the row is named.
    """
    for place, row in source.rows():
        fields = {name: text_of(row, _column(row, columns, name), place) for name in columns}
        try:
            scores = _scores(row, task)
            answer = None if scores is None else _answer(scores, task)
        except PalamError as error:
            raise PalamError(f"{place}: {error}") from None
        if answer is not None:
            yield SoftlyLabelled(fields, answer)


def _column(row: Row, columns: Mapping[str, str], name: str) -> str:
    """The column of one of the task's fields; see [`read_soft_labels`]."""
    column = columns[name]
    is_plain = len(columns) == 1 and column not in row and PLAIN_COLUMN in row
    return PLAIN_COLUMN if is_plain else column


def _scores(row: Row, task: Task | None) -> Mapping[str, float] | None:
    """A row's log-probabilities by label; None if it has been labelled with nothing."""
    for name in (PREFIX + SCORES, SCORES):
        if name in row:
            return _checked_scores(row[name])
    if task is None:
        raise PalamError(f'there is no "{SCORES}"; give JSON lines that `palam classify` wrote')
    columns = {}
    for label in task.labels:
        column = PREFIX + label if PREFIX + label in row else label
        if column not in row:
            raise PalamError(
                f'there is neither "{SCORES}" nor a column "{label}" with the label\'s '
                "probability; give a file that `palam classify` wrote"
            )
        columns[label] = row[column]
    if all(value in (None, "") for value in columns.values()):
        return None
    return _checked_scores({label: _logarithm(label, value) for label, value in columns.items()})


def _checked_scores(scores: Any) -> Mapping[str, float] | None:
    """Log-probabilities by label, if that is what they are."""
    if scores is None:
        return None
    if not isinstance(scores, Mapping) or not scores:
        raise PalamError(f'"{SCORES}" is no object with a log-probability for each label')
    for label, score in scores.items():
        if type(score) not in (int, float) or not score < math.inf:
            raise PalamError(f'the score of "{label}" is no log-probability')
    if max(scores.values()) == -math.inf:
        raise PalamError("no label has a probability")
    return scores


def _logarithm(label: str, value: Any) -> float:
    """The natural logarithm of a probability as a table holds it."""
    try:
        probability = float(value)
    except (TypeError, ValueError):
        probability = math.nan
    if not 0 <= probability <= 1:
        raise PalamError(f'the column "{label}" holds {value!r}, which is no probability')
    return math.log(probability) if probability else -math.inf


def _answer(scores: Mapping[str, float], task: Task | None) -> SoftAnswer:
    """What the LLM may answer, by log-probabilities of labels."""
    answers = []
    for label in scores:
        known = label if task is None else task.label_of(label)
        if known is None:
            listed = ", ".join(task.labels) if task else ""
            raise PalamError(f'"{label}" is none of the labels, which are: {listed}')
        answers.append(known if task is None else task.answer(known))
    return SoftAnswer(tuple(answers), tuple(normalised(scores.values())))
