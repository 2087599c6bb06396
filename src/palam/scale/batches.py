"""Batches of columns as other libraries hand them on: mappings of lists or arrays, Arrow tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from palam.scale.failures import Failure, one_line

Batch = Any
"""A mapping of lists or numpy arrays by column, a table or record batch of pyarrow."""
Kind = Literal["text", "number"]


class AddedColumn(NamedTuple):
    """A column that is added to a batch.

    Attributes:
        name: that no column of the batch has.
        kind: of its values.
        values: one a row; None is missing.
    """

    name: str
    kind: Kind
    values: list[Any]


def column_names(batch: Batch) -> list[str]:
    """The names of a batch's columns, in their order."""
    if isinstance(batch, Mapping):
        return [str(name) for name in batch]
    return [str(name) for name in batch.schema.names]


def num_rows(batch: Batch) -> int:
    """How many rows a batch has."""
    if isinstance(batch, Mapping):
        return max((len(values) for values in batch.values()), default=0)
    return int(batch.num_rows)


def column_values(batch: Batch, name: str) -> list[Any]:
    """A column's values as Python has them; one that cannot be had is a [`Failure`]."""
    values = batch[name] if isinstance(batch, Mapping) else batch.column(name)
    if hasattr(values, "to_pylist"):
        try:
            return list(values.to_pylist())
        except ValueError:  # bytes that are no UTF-8
            return [_arrow_value(value) for value in values]
    if hasattr(values, "tolist"):
        values = values.tolist()
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]


def _arrow_value(value: Any) -> Any:
    try:
        return value.as_py()
    except ValueError as error:
        return Failure(one_line(error))


def with_columns(batch: Batch, added: Sequence[AddedColumn]) -> Batch:
    """A batch of the same kind, with columns added behind its own."""
    if isinstance(batch, Mapping):
        return _mapping_with(batch, added)
    import pyarrow

    types = {"text": pyarrow.string(), "number": pyarrow.float64()}
    for column in added:
        array = pyarrow.array(column.values, types[column.kind])
        batch = batch.append_column(pyarrow.field(column.name, array.type), array)
    return batch


def _mapping_with(batch: Mapping[Any, Any], added: Sequence[AddedColumn]) -> dict[Any, Any]:
    """Arrays stay arrays; a missing number is NaN in them."""
    of_arrays = any(hasattr(values, "dtype") for values in batch.values())
    result = dict(batch)
    for column in added:
        result[column.name] = _array(column) if of_arrays else column.values
    return result


def _array(column: AddedColumn) -> Any:
    import numpy as np

    if column.kind == "number":
        return np.array(column.values, dtype=np.float64)
    array = np.empty(len(column.values), dtype=object)
    array[:] = column.values
    return array
