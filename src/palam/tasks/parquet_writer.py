"""Rows as a Parquet file, in two passes: the types of its columns are known at the end alone."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Any

from palam.errors import PalamError
from palam.tasks.cells import EXACT_INTEGERS, cell_text, flat_value
from palam.tasks.formats import Row
from palam.tasks.losses import Losses

BATCH_SIZE = 10_000
"""Rows in memory at a time; each batch becomes a row group."""
LARGEST_INTEGER = 2**63 - 1
SURROGATES = re.compile("[\ud800-\udfff]")
"""Unpaired surrogates, which are no UTF-8."""


def write_parquet(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    """Write rows as Parquet; see [`palam.tasks.writers.write_rows`].

    A column is of whole numbers, of numbers, of truth values, or else of texts: that of mixed
    values has the text of each.

    Raises:
        PalamError: pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PalamError('.parquet needs pyarrow: pip install "palam[tables]"') from None
    with tempfile.TemporaryFile() as spool:
        kinds = _spool_rows(rows, columns, spool, losses)
        spool.seek(0)
        types = [_column_type(column_kinds) for column_kinds in kinds]
        names = [losses.replaced(SURROGATES, name) for name in columns]
        fields = [pyarrow.field(name, type_) for name, type_ in zip(names, types, strict=True)]
        schema = pyarrow.schema(fields)
        with pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for batch in _batches(spool):
                arrays = [
                    pyarrow.array(_of_type(values, type_), type_)
                    for values, type_ in zip(zip(*batch, strict=True), types, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _spool_rows(
    rows: Iterable[Row], columns: Sequence[str], spool: IO[bytes], losses: Losses
) -> list[set[str]]:
    """Write the rows' cells to a temporary file; return which kinds of values each column has."""
    kinds: list[set[str]] = [set() for _ in columns]
    for row in rows:
        cells = []
        for name, column_kinds in zip(columns, kinds, strict=True):
            value = flat_value(row.get(name))
            if isinstance(value, str):
                value = losses.replaced(SURROGATES, value)
            if value is not None:
                column_kinds.add(_kind(value))
            cells.append(value)
        spool.write(json.dumps(cells).encode() + b"\n")
    return kinds


def _kind(value: str | int | float | bool) -> str:
    """What a value asks of its column's type; a `big` integer has no float of its own."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str) or abs(value) > LARGEST_INTEGER:
        return "text"
    return "integer" if abs(value) <= EXACT_INTEGERS else "big"


def _column_type(kinds: set[str]) -> Any:
    """The Arrow type that holds all values of some kinds."""
    import pyarrow

    if kinds == {"bool"}:
        return pyarrow.bool_()
    if kinds and kinds <= {"integer", "big"}:
        return pyarrow.int64()
    if kinds and kinds <= {"integer", "float"}:
        return pyarrow.float64()
    return pyarrow.string()


def _of_type(values: Sequence[Any], type_: Any) -> list[Any]:
    """The values as a column's type has them: in one of texts, numbers are their texts."""
    import pyarrow

    if type_ != pyarrow.string():
        return list(values)
    return [None if value is None else cell_text(value) for value in values]


def _batches(spool: IO[bytes]) -> Iterator[list[list[Any]]]:
    """The cells of the rows, some rows at a time."""
    while lines := list(islice(spool, BATCH_SIZE)):
        yield [json.loads(line) for line in lines]
