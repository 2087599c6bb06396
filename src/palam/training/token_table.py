"""Tokenised rows as arrays: a tenth of the memory of Python lists, or on disk, memory-mapped.

On disk they are read by any number of processes, whose memory they are not.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from palam.models.processing import IGNORE, Features, count_labels

TABLE_FILE = "table.json"
"""Written last: a folder that holds it is complete."""
OPTIONAL_COLUMN = "encoder_input_ids"
"""Rows that the LLM reads alone have none."""
ID_TYPE = np.dtype("<i4")
END_TYPE = np.dtype("<i8")


class RaggedArray(Sequence[list[int]]):
    """Rows of different lengths, one after the other in an array.

    Args:
        values: int32, of all rows.
        ends: int64, behind the last value of each row.
    """

    def __init__(self, values: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> None:
        self.values = values
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self._select(range(*row.indices(len(self))))
        start = self.ends[row - 1] if row else 0
        return self.values[start : self.ends[row]].tolist()

    def _select(self, rows: range) -> "RaggedArray":
        """Some of the rows, as arrays too; all of them without a copy."""
        if rows == range(len(self)):
            return self
        starts = self.ends - self.lengths()
        parts = [self.values[starts[row] : self.ends[row]] for row in rows]
        values = np.concatenate([self.values[:0], *parts])
        return RaggedArray(values, self.lengths()[rows.start : rows.stop : rows.step].cumsum())

    def lengths(self) -> npt.NDArray[np.int64]:
        """Of each row."""
        return np.diff(self.ends, prepend=0)

    def followed_by(self, other: "RaggedArray") -> "RaggedArray":
        """These rows and another's, in memory."""
        values = np.concatenate([self.values, other.values])
        ends = np.concatenate([self.ends, other.ends + len(self.values)])
        return RaggedArray(values, ends)


class TokenTable(Sequence[Features]):
    """Rows with their answers, as [`PalamProcessor.features`] makes them.

    The answer is the end of what the LLM reads, so that of the labels only their number is kept.

    Args:
        input_ids: what the LLM reads, with the answer.
        num_labels: int32, the answer's length in each row.
        encoder_input_ids: what the encoder reads; None if the LLM reads the text itself.
    """

    def __init__(
        self,
        input_ids: RaggedArray,
        num_labels: npt.NDArray[np.int32],
        encoder_input_ids: RaggedArray | None,
    ) -> None:
        self.input_ids = input_ids
        self.num_labels = num_labels
        self.encoder_input_ids = encoder_input_ids

    @classmethod
    def build(
        cls, chunks: Iterable[Sequence[Features]], folder: Path | None = None
    ) -> "TokenTable":
        """Take rows, a chunk at a time.

        Args:
            chunks: of rows, all with `encoder_input_ids` or all without.
            folder: where to keep them, an existing folder; None is in memory.
        """
        with ExitStack() as files:
            writers: dict[str, _RowWriter] = {}
            for chunk in chunks:
                for row in chunk:
                    for name, values in _columns_of(row).items():
                        if name not in writers:
                            writers[name] = _RowWriter(files, folder, name)
                        writers[name].add(values)
            columns = {name: writer.finish() for name, writer in writers.items()}
        if folder is not None:
            content = json.dumps({"columns": sorted(columns)}) + "\n"
            (folder / TABLE_FILE).write_text(content, encoding="utf-8")
            return cls.open(folder)
        return cls._of(columns)

    @classmethod
    def open(cls, folder: Path) -> "TokenTable":
        """The rows that are kept in a folder, memory-mapped."""
        names = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))["columns"]
        columns = {}
        for name in names:
            values = _mapped(_values_file(folder, name), ID_TYPE)
            ends = _mapped(_ends_file(folder, name), END_TYPE)
            columns[name] = RaggedArray(values, ends)
        return cls._of(columns)

    @classmethod
    def _of(cls, columns: dict[str, RaggedArray]) -> "TokenTable":
        nothing = RaggedArray(np.zeros(0, ID_TYPE), np.zeros(0, END_TYPE))
        return cls(
            input_ids=columns.get("input_ids", nothing),
            num_labels=columns.get("num_labels", nothing).values,
            encoder_input_ids=columns.get(OPTIONAL_COLUMN),
        )

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, row: Any) -> Any:
        input_ids = self.input_ids[row]
        num_labels = int(self.num_labels[row])
        num_before = len(input_ids) - num_labels
        features: Features = {
            "input_ids": input_ids,
            "labels": [IGNORE] * num_before + input_ids[num_before:],
        }
        if self.encoder_input_ids is not None:
            features[OPTIONAL_COLUMN] = self.encoder_input_ids[row]
        return features

    def lengths(self) -> npt.NDArray[np.int64]:
        """How many tokens both models read of each row."""
        lengths = self.input_ids.lengths()
        if self.encoder_input_ids is not None:
            lengths = lengths + self.encoder_input_ids.lengths()
        return lengths


def _columns_of(row: Features) -> dict[str, Sequence[int]]:
    """What is kept of a row, by column."""
    columns: dict[str, Sequence[int]] = {
        "input_ids": row["input_ids"],
        "num_labels": [count_labels(row["labels"])],
    }
    if OPTIONAL_COLUMN in row:
        columns[OPTIONAL_COLUMN] = row[OPTIONAL_COLUMN]
    return columns


class _RowWriter:
    """Collects the rows of one column, in memory or in two files.

    Args:
        files: closes the files.
        folder: of the files; None is in memory.
        name: of the column.
    """

    def __init__(self, files: ExitStack, folder: Path | None, name: str) -> None:
        self._values = array("i")
        self._ends = array("q")
        self._end = 0
        self._files: tuple[IO[bytes], IO[bytes]] | None = None
        if folder is not None:
            values_file = files.enter_context(_values_file(folder, name).open("wb"))
            ends_file = files.enter_context(_ends_file(folder, name).open("wb"))
            self._files = (values_file, ends_file)

    def add(self, values: Sequence[int]) -> None:
        """Add a row."""
        self._values.extend(values)
        self._end += len(values)
        self._ends.append(self._end)
        if self._files is not None and len(self._values) > 2**20:
            self._write(self._files)

    def _write(self, files: tuple[IO[bytes], IO[bytes]]) -> None:
        values_file, ends_file = files
        values_file.write(np.asarray(self._values, ID_TYPE).tobytes())
        ends_file.write(np.asarray(self._ends, END_TYPE).tobytes())
        del self._values[:], self._ends[:]

    def finish(self) -> RaggedArray:
        """The rows that are in memory; of those in files, the rest is written."""
        if self._files is not None:
            self._write(self._files)
        return RaggedArray(np.asarray(self._values, ID_TYPE), np.asarray(self._ends, END_TYPE))


def _values_file(folder: Path, column: str) -> Path:
    return folder / f"{column}.values"


def _ends_file(folder: Path, column: str) -> Path:
    return folder / f"{column}.ends"


def _mapped(path: Path, dtype: "np.dtype[Any]") -> Any:
    """A file as an array; an empty one cannot be mapped."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")


def batched(rows: range, size: int) -> Iterator[range]:
    """Ranges of so many rows each; the last may be shorter."""
    for start in range(rows.start, rows.stop, size):
        yield range(start, min(start + size, rows.stop))
