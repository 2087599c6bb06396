"""Rows as a workbook (.xlsx), a row at a time."""

import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

from palam.errors import PalamError
from palam.tasks.cells import flat_value
from palam.tasks.formats import Row
from palam.tasks.losses import Losses

MAX_ROWS = 1_048_576
"""Rows of a sheet, with the header."""
MAX_COLUMNS = 16_384
MAX_CELL = 32_767
"""Characters of a cell, in units of UTF-16."""
EXACT_DIGITS = 15
"""Digits of a number that a workbook keeps."""
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML forbids."""
ESCAPED = re.compile("\r|_(?=x[0-9A-Fa-f]{4}_)")
"""What a workbook escapes in texts: a carriage return, and what looks like an escape."""
ESCAPE_LENGTH = len("_x000D_")


def write_workbook(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], losses: Losses
) -> None:
    """Write rows as the one sheet of a workbook; see [`palam.tasks.writers.write_rows`].

    A text stays a text, also one that begins as a formula does (`=1+1`). So does a whole number of
    more than 15 digits, which a workbook would round.

    Raises:
        PalamError: more rows or columns than a sheet holds, or openpyxl is missing.
    """
    try:
        from openpyxl import Workbook
    except ImportError:
        raise PalamError('.xlsx needs openpyxl: pip install "palam[tables]"') from None
    if len(columns) > MAX_COLUMNS:
        raise PalamError(
            f"{len(columns):,} columns are more than the {MAX_COLUMNS:,} of a sheet; "
            "write them as .csv or .parquet"
        )
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("Sheet1")
    sheet.freeze_panes = "A2"
    try:
        sheet.append([_text_cell(sheet, name, losses) for name in columns])
        for number, row in enumerate(rows, 2):
            if number > MAX_ROWS:
                raise PalamError(
                    f"more than the {MAX_ROWS - 1:,} rows that a sheet holds below its header; "
                    "write them as .csv or .parquet"
                )
            sheet.append(_cells(sheet, row, columns, losses))
        workbook.save(file)
    except BaseException:
        sheet.close()  # else its temporary file is closed later, with a traceback
        raise


def _cells(sheet: Any, row: Row, columns: Sequence[str], losses: Losses) -> list[Any]:
    """The cells of a row; a row of empty ones has an empty text, or it would be none."""
    cells = [_cell(sheet, row.get(name), losses) for name in columns]
    if cells and all(cell is None for cell in cells):
        from openpyxl.cell.rich_text import CellRichText

        cells[0] = CellRichText()
    return cells


def _cell(sheet: Any, value: Any, losses: Losses) -> Any:
    value = flat_value(value)
    if value is None or value == "":
        return None
    if isinstance(value, float):
        return _number_cell(sheet, value)
    if isinstance(value, int) and abs(value) < 10**EXACT_DIGITS:
        return value
    return _text_cell(sheet, str(value), losses)


def _number_cell(sheet: Any, value: float) -> Any:
    """A cell of a number with all of its digits, of which openpyxl writes 16."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, repr(value))
    cell.data_type = "n"
    return cell


def _text_cell(sheet: Any, text: str, losses: Losses) -> Any:
    """A cell of text, whatever the text looks like."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, escaped_text(text, losses))
    cell.data_type = "s"
    return cell


def escaped_text(text: str, losses: Losses) -> str:
    """The text as a workbook's XML holds it; what it cannot hold is counted among the losses."""
    text = losses.replaced(NO_XML, text)
    escaped = ESCAPED.sub(_escape, text)
    if 2 * len(escaped) <= MAX_CELL:
        return escaped
    beginning = _beginning(text)
    if len(beginning) < len(text):
        losses.num_cut += 1
    return ESCAPED.sub(_escape, beginning)


def _beginning(text: str) -> str:
    """So much of the text as a cell holds."""
    length = 0
    for position, character in enumerate(text):
        if ESCAPED.match(text, position):
            length += ESCAPE_LENGTH
        else:
            length += 1 if character <= "\uffff" else 2
        if length > MAX_CELL:
            return text[:position]
    return text


def _escape(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):04X}_"
