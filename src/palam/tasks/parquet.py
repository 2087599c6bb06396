"""Rows of Parquet files and of folders that `datasets` saved, streamed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from palam.errors import PalamError
from palam.tasks.cells import Plain, plain_value
from palam.tasks.formats import NumberedLine, Row, shortened
from palam.tasks.tables import checked_header
from palam.utils.texts import first_line, shown

BATCH_SIZE = 1000
"""Rows that are read at a time."""

LabelNames = Mapping[str, list[str]]
"""The labels' names by column, where a column has integers for them."""


def read_parquet(path: Path) -> Iterator[NumberedLine]:
    """The rows of a Parquet file, numbered from 1; see [`plain_value`] for their values.

    Integers that stand for labels, as `datasets` writes them, are read as the labels' names.

    Raises:
        PalamError: a damaged file, a column named twice, or pyarrow is missing.
    """
    with ExitStack() as stack:
        file = _open(path, stack)
        checked_header(list(file.schema_arrow.names), str(path))
        batches = _batches(file, path)
        yield from _rows(batches, _label_names(file.schema_arrow.metadata), path)


def count_parquet(path: Path) -> int:
    """The number of rows, from the file's metadata."""
    with ExitStack() as stack:
        return int(_open(path, stack).metadata.num_rows)


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is one that `datasets` saved: a data set, or several splits.

    Raises:
        PalamError: it is of several splits, of which one must be given.
    """
    if (path / "dataset_dict.json").is_file():
        splits = sorted(folder.name for folder in path.iterdir() if is_saved_dataset(folder))
        raise PalamError(f"{path} holds the splits {shortened(splits)}: give one of these folders")
    return (path / "dataset_info.json").is_file() and (path / "state.json").is_file()


def read_saved_dataset(path: Path) -> Iterator[NumberedLine]:
    """The rows of a folder by `datasets.Dataset.save_to_disk`, as [`read_parquet`] gives them."""
    data = _load_saved(path)
    features = data.features.items()
    names = {column: list(kind.names) for column, kind in features if hasattr(kind, "names")}
    batches = data.with_format("arrow").iter(batch_size=BATCH_SIZE)
    yield from _rows(batches, names, path)


def count_saved_dataset(path: Path) -> int:
    """The number of rows."""
    return len(_load_saved(path))


def _open(path: Path, stack: ExitStack) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PalamError('.parquet needs pyarrow: pip install "palam[tables]"') from None
    file = stack.enter_context(path.open("rb"))
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _batches(file: Any, path: Path) -> Iterator[Any]:
    import pyarrow

    try:
        yield from file.iter_batches(BATCH_SIZE)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> PalamError:
    return PalamError(f"{path} is damaged or no Parquet file: {first_line(error)}")


def _load_saved(path: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise PalamError(f'{path} needs datasets: pip install "palam[hub]"') from None
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # whatever its files say
        raise PalamError(f"cannot read {path}: {first_line(error)}") from None


def _rows(batches: Iterable[Any], label_names: LabelNames, path: Path) -> Iterator[NumberedLine]:
    number = 0
    for batch in batches:
        columns = {
            name: _plain_values(batch.column(place), f"{path}: the column {shown(name)}")
            for place, name in enumerate(batch.schema.names)
        }
        for values in zip(*columns.values(), strict=True):
            number += 1
            row: Row = dict(zip(columns, values, strict=True))
            for column, names in label_names.items():
                label = row[column]
                if isinstance(label, int) and 0 <= label < len(names):
                    row[column] = names[label]
            yield NumberedLine(number, row)


def _plain_values(column: Any, source: str) -> list[Plain]:
    """A column's values, see [`plain_value`]; what Python has no value for, as text.

    That is of times beyond the year 9999, of nanoseconds, and the like.

    Raises:
        PalamError: it has no text either.
    """
    import pyarrow

    try:
        return [plain_value(value) for value in column.to_pylist()]
    except Exception:  # of Python's, of pandas' and of the time zones' own kinds
        try:
            return list(column.cast(pyarrow.string()).to_pylist())
        except Exception as error:
            raise PalamError(f"{source} cannot be read: {first_line(error)}") from None


def _label_names(metadata: Mapping[bytes, bytes] | None) -> LabelNames:
    """The names that `datasets` keeps in a Parquet file's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: list(feature["names"])
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):  # none, or of another form
        return {}
