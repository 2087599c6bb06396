"""How a row becomes the text that the model reads."""

from typing import NamedTuple

from palam.models.task_record import TaskRecord
from palam.tasks.readers import NumberedRow, text_of
from palam.utils.text_template import fill, slots

TEXT = "text"
"""The column of the text where no other is named, and that of plain text."""


class TextForm(NamedTuple):
    """How a row becomes the text that the model reads: a template, and a column for each slot."""

    template: str
    """With a slot for each of the columns."""
    columns: dict[str, str]
    """The user's column for each of the template's slots."""
    is_named: bool
    """Whether the user has named the column."""

    @classmethod
    def of(cls, task: TaskRecord | None, column: str | None = None) -> "TextForm":
        """The form of a bridge's task, or the text as it is.

        Args:
            task: that the bridge was trained for; None of a bridge of raw text.
            column: of the text, if the user names it. A text that needs several is then read as it
                stands in that one.
        """
        template = f"{{{TEXT}}}" if task is None else task.text
        names = sorted(slots(template))
        if column is not None:
            if len(names) != 1:
                template, names = f"{{{TEXT}}}", [TEXT]
            return cls(template, {names[0]: column}, is_named=True)
        trained = {} if task is None else task.columns
        columns = {name: trained.get(name, name) for name in names}
        return cls(template, columns, is_named=False)

    @property
    def expected_column(self) -> str | None:
        """A column that the file must have; None is one that plain text can stand for."""
        if self.is_named or len(self.columns) != 1:
            return next(iter(self.columns.values()))
        return None

    def text(self, numbered: NumberedRow) -> str:
        """The text of a row.

        A row that is a text and nothing else, as those of plain text are, needs not have the one
        column that the bridge was trained on.

        Raises:
            PalamError: a column that it does not have, or that holds no text.
        """
        hint = "" if self.is_named else "; name one with --column"
        place, row = numbered
        fields = {}
        for name, column in self.columns.items():
            if self.expected_column is None and column not in row and list(row) == [TEXT]:
                column = TEXT
            fields[name] = text_of(row, column, place, hint=hint)
        return fill(self.template, fields)

    def __str__(self) -> str:
        """The template over the user's own columns."""
        return fill(self.template, {name: f"{{{column}}}" for name, column in self.columns.items()})
