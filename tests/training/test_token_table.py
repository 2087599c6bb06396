"""Tokenised rows in arrays: what goes in comes out, in memory and on disk."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palam.models.processing import IGNORE
from palam.training.token_table import TokenTable, batched

ids = st.lists(st.integers(0, 2**31 - 1), max_size=6)


@st.composite
def row_lists(draw):
    """Rows as the processor makes them, all with text for the encoder or all without."""
    has_text = draw(st.booleans())
    rows = []
    for prompt, answer in draw(st.lists(st.tuples(ids, ids), max_size=12)):
        row = {"input_ids": prompt + answer, "labels": [IGNORE] * len(prompt) + answer}
        if has_text:
            row["encoder_input_ids"] = draw(ids)
        rows.append(row)
    return rows


def tables(rows, size, folder):
    """The rows in memory, and on disk."""
    folder.mkdir()
    chunks = [list(rows[chunk.start : chunk.stop]) for chunk in batched(range(len(rows)), size)]
    return TokenTable.build(chunks), TokenTable.build(chunks, folder), TokenTable.open(folder)


@settings(deadline=None, max_examples=50)
@given(row_lists(), st.integers(1, 5))
def test_rows_come_out_as_they_went_in(tmp_path_factory, rows, size):
    folder = tmp_path_factory.mktemp("table") / "rows"
    for table in tables(rows, size, folder):
        assert len(table) == len(rows)
        assert [table[number] for number in range(len(rows))] == rows
        lengths = [len(row["input_ids"]) + len(row.get("encoder_input_ids", ())) for row in rows]
        assert table.lengths().tolist() == lengths


def test_a_table_on_disk_is_not_in_memory(tmp_path):
    rows = [{"input_ids": [1, 2, 3], "labels": [IGNORE, IGNORE, 3]}] * 10
    (tmp_path / "rows").mkdir()
    table = TokenTable.build([rows], tmp_path / "rows")
    assert isinstance(table.input_ids.values, np.memmap)


def test_one_array_follows_another():
    first = TokenTable.build([[{"input_ids": [1, 2], "labels": [IGNORE, 2]}]]).input_ids
    second = TokenTable.build(
        [[{"input_ids": [], "labels": []}, {"input_ids": [7], "labels": [7]}]]
    ).input_ids
    assert list(first.followed_by(second)) == [[1, 2], [], [7]]
    assert list(first.followed_by(second)[1:]) == [[], [7]]
    assert list(first.followed_by(second)[::2]) == [[1, 2], [7]]
    assert list(first.followed_by(second)[3:]) == []


def test_ranges_in_batches():
    assert list(batched(range(0), 3)) == []
    assert list(batched(range(6), 3)) == [range(3), range(3, 6)]
    assert list(batched(range(7), 3))[-1] == range(6, 7)
