"""Labelled examples from the rows of a file or of the hub."""

import re
from collections.abc import Iterable, Mapping

from palam.errors import PalamError
from palam.tasks.readers import NumberedRow, Row, shortened, text_of
from palam.tasks.task import Example, Task


def examples_from_rows(
    task: Task, rows: Iterable[NumberedRow], source: str, columns: Mapping[str, str]
) -> list[Example]:
    """The examples of a task, in the order of their rows.

    Args:
        task: says which fields and labels there are.
        rows: the rows, each with its place for messages.
        source: where the rows come from, for messages.
        columns: the columns of the task's fields, and of `label`, where they have other names.

    Raises:
        PalamError: a column that is missing or holds no text, a label that is none of the task's
            (names the row), or no rows at all.
    """
    examples = []
    for number, (place, row) in enumerate(rows):
        fields = _fields(task, row, place, columns)
        label = _label(task, row, place, columns)
        examples.append(Example(number, fields, label))
    if not examples:
        raise PalamError(f"{source} is empty")
    return examples


def _fields(task: Task, row: Row, place: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The texts of the row's fields by name."""
    fields = {}
    for field in task.fields:
        text = text_of(row, columns.get(field, field), place)
        fields[field] = unescaped(text) if task.escaped else text
    return fields


def _label(task: Task, row: Row, place: str, columns: Mapping[str, str]) -> str:
    """The task's label of the row."""
    column = columns.get("label", task.label_column)
    if column not in row:
        raise PalamError(f'{place}: no column "{column}" among {shortened(row)}')
    label = task.label_of(row[column])
    if label is None:
        value = str(row[column])[:40]
        raise PalamError(f"{place}: label {value!r} is none of {shortened(task.labels)}")
    return label


def unescaped(text: str) -> str:
    r"""The text with escapes such as `\u2019`, also in pairs, as the characters they stand for."""
    characters = re.sub(r"\\u([0-9a-fA-F]{4})", _escaped_character, text)
    return characters.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _escaped_character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))
