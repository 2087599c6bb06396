"""The columns that a command adds to each row, beside the user's own."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from palam.scale.work import probabilities
from palam.tasks.columns import free_names, with_results
from palam.tasks.formats import Row
from palam.tasks.label_scores import SCORES
from palam.tasks.readers import NumberedRow


class ResultColumns(NamedTuple):
    """What the results are called in the output.

    Attributes:
        names: a column for each result, by its usual name.
        label_names: in a flat format, a column for each label's probability, by the label.
    """

    names: dict[str, str]
    label_names: dict[str, str]

    @classmethod
    def beside(
        cls, own: Iterable[str], results: Sequence[str], labels: Sequence[str]
    ) -> "ResultColumns":
        """Names that none of the user's own columns has; see [`free_names`].

        Args:
            own: the user's columns.
            results: usual names.
            labels: those that get a column of their own.

        Raises:
            PalamError: a name that cannot be had.
        """
        names = free_names(own, results)
        label_names = free_names([*own, *names.values()], labels)
        return cls(names, label_names)

    def check(self, numbered: NumberedRow) -> None:
        """Refuse a row that has one of these columns, which the first row did not have.

        Raises:
            PalamError: it has one.
        """
        added = [*self.names.values(), *self.label_names.values()]
        with_results(numbered, dict.fromkeys(added))

    def with_results(self, row: Row, results: Row) -> Row:
        """A row that was checked, with its results, by usual name, in their columns."""
        named = {name: results[usual] for usual, name in self.names.items()}
        return {**row, **named}

    def own(self, row: Row) -> Row:
        """What of a finished row is the user's."""
        added = set(self.names.values())
        return {name: value for name, value in row.items() if name not in added}

    def completed(self, row: Row) -> Row:
        """A finished row with nothing for the results that it does not have."""
        return {**row, **{name: None for name in self.names.values() if name not in row}}

    def flat(self, row: Row) -> Row:
        """A finished row with a probability for each label in place of the scores."""
        if not self.label_names:
            return row
        flat_row = dict(row)
        scores = flat_row.pop(self.names[SCORES])
        values: list[Any] = [None] * len(self.label_names)  # of a row that could not be read
        if scores is not None:
            values = list(probabilities(scores.values()))
        flat_row.update(zip(self.label_names.values(), values, strict=True))
        return flat_row

    def all_columns(self, rows: Iterable[Row]) -> list[str]:
        """The columns of finished rows for a flat format: the user's, then the results'."""
        columns: dict[str, None] = {}  # its keys are an ordered set
        for row in rows:
            columns.update(dict.fromkeys(self.own(row)))
        columns.update(dict.fromkeys(self.names.values()))
        if self.label_names:
            del columns[self.names[SCORES]]
        return [*columns, *self.label_names.values()]
