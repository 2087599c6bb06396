"""Labelled examples from the rows of a file or of the hub."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from palam.errors import PalamError
from palam.tasks.formats import Row, shortened
from palam.tasks.labels import has_no_label, label_text, without_fraction
from palam.tasks.readers import NumberedRow, text_of
from palam.tasks.task import CUSTOM_FAMILY, VARIANTS, Example, Task
from palam.utils.notes import tell


def examples_from_rows(
    task: Task,
    rows: Iterable[NumberedRow],
    source: str,
    columns: Mapping[str, str],
    *,
    notes: list[str] | None = None,
) -> list[Example]:
    """The examples of a task, in the order of their rows.

    Rows without a gold label (see [`has_no_label`]) are left out, and counted in a note.

    Args:
        task: says which fields and labels there are.
        rows: the rows, each with its place for messages.
        source: where the rows come from, for messages.
        columns: the columns of the task's fields, and of `label`, where they have other names.
        notes: see [`tell`].

    Raises:
        PalamError: a column that is missing or holds no text, a label that is none of the task's
            (names the row), or no rows at all.
    """
    examples = []
    unlabelled: Counter[str] = Counter()
    for number, (place, row) in enumerate(rows):
        label = _label(task, row, place, columns)
        if label is None:
            unlabelled[_written(row[columns.get("label", task.label_column)])] += 1
            continue
        fields = _fields(task, row, place, columns)
        examples.append(Example(number, fields, label))
    if unlabelled:
        num_rows = len(examples) + unlabelled.total()
        note = _unlabelled_note(unlabelled, num_rows, source)
        if "-1" in unlabelled and task.family == CUSTOM_FAMILY:
            note += "; if -1 is a label, write a word for it in the file"
        tell(note, notes)
    if not examples:
        raise PalamError(
            f"{source}: no row has a gold label" if unlabelled else f"{source} is empty"
        )
    return examples


def _unlabelled_note(unlabelled: Counter[str], num_rows: int, source: str) -> str:
    listed = ", ".join(unlabelled)
    count = unlabelled.total()
    return f"{source}: {count} of {num_rows} rows have no gold label ({listed}) and are left out"


def _written(value: object) -> str:
    """How a missing label is written, for messages."""
    return without_fraction(label_text(value).strip()) or "empty"


def _fields(task: Task, row: Row, place: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The texts of the row's fields by name."""
    fields = {}
    for field in task.fields:
        text = text_of(row, columns.get(field, field), place)
        fields[field] = unescaped(text) if task.escaped else text
    return fields


def _label(task: Task, row: Row, place: str, columns: Mapping[str, str]) -> str | None:
    """The task's label of the row; None where it has no gold label."""
    column = columns.get("label", task.label_column)
    if column not in row:
        raise PalamError(f'{place}: no column "{column}" among {shortened(row)}')
    value = row[column]
    if not isinstance(value, str | int | float | None):
        raise PalamError(f"{place}: label {str(value)[:40]!r} is neither a text nor a number")
    if task.has_free_answers and has_no_label(value, number=True):
        return None
    label = task.label_of(value)
    if label is None and not has_no_label(value):
        raise PalamError(f"{place}: label {str(value)[:40]!r} is none of {shortened(task.labels)}")
    return label


def with_references(examples: Sequence[Example], partners: Sequence[Example]) -> list[Example]:
    """The examples, each with the label of the same row in another language.

    Raises:
        PalamError: a row that the other language does not have.
    """
    label_of = {partner.row: partner.label for partner in partners}
    pairs = []
    for example in examples:
        if example.row not in label_of:
            raise PalamError(
                f"row {example.row} is not in the reference language, which has {len(partners)} "
                "rows; the same rows must be in every language"
            )
        pairs.append(replace(example, label=label_of[example.row]))
    return pairs


def with_questions(examples: Sequence[Example], questions: Iterable[NumberedRow]) -> list[Example]:
    """An example for each question about a text, numbered as the questions are.

    Args:
        examples: the texts.
        questions: rows with `text`, the row of the text that is asked about, from 0; `question`;
            `answers`, a list of those that are right; and perhaps `wrong`, a list of words that
            make an answer wrong.

    Raises:
        PalamError: a question that is wrong (names its line) or about a text that is not there.
    """
    by_row = {str(example.row): example for example in examples}
    asked = []
    for number, (place, row) in enumerate(questions):
        text = by_row.get(str(row.get("text")))
        question = row.get("question")
        answers = row.get("answers")
        if text is None:
            raise PalamError(f"{place}: there is no text {row.get('text')!r} to ask about")
        if not isinstance(question, str) or not isinstance(answers, list) or not answers:
            raise PalamError(f"{place}: a question needs its words and a list of right answers")
        wrong = VARIANTS.join(map(str, row.get("wrong") or []))
        fields = {**text.fields, "question": question, "wrong": wrong}
        asked.append(Example(number, fields, VARIANTS.join(map(str, answers))))
    return asked


def unescaped(text: str) -> str:
    r"""The text with escapes such as `\u2019`, also in pairs, as the characters they stand for."""
    characters = re.sub(r"\\u([0-9a-fA-F]{4})", _escaped_character, text)
    return characters.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _escaped_character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))
