"""Rows of Excel workbooks (.xlsx), streamed."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

from palam.errors import PalamError
from palam.tasks.cells import Plain, cell_text, plain_value
from palam.tasks.counting import SheetCounter
from palam.tasks.formats import NumberedLine, column_letter, shortened
from palam.tasks.tables import checked_header
from palam.utils.notes import tell
from palam.utils.texts import first_line

MAX_ROWS = 1_048_576
"""Rows of a sheet, with the header."""
OLE_BEGINNING = b"\xd0\xcf\x11\xe0"
"""What a workbook under a password begins with, and one of Excel 97."""
ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
"""How a workbook writes a character that its XML cannot hold, such as a carriage return."""
FORMULA = re.compile(rb"<(\w+:)?f[ >/]")
"""A formula in a sheet's XML."""
CHUNK_BYTES = 2**20


def read_workbook(
    path: Path, sheet: str | int | None = None, *, tell_sheet: bool = True
) -> Iterator[NumberedLine]:
    """The rows of a sheet below its header, which is the first row that is not empty.

    Of formulas, the values; of merged cells, the first has the value; dates are ISO texts; empty
    cells are None. Empty rows are rows, but for those at the end.

    Args:
        path: the workbook.
        sheet: its name, or its number from 1; default the first that is shown.
        tell_sheet: say which sheet is read, where there are several and none is named.

    Raises:
        PalamError: no workbook, or a damaged or protected one; no such sheet; a value that the
            header gives no name; a formula whose value was not saved; openpyxl is missing.
    """
    with ExitStack() as stack:
        worksheet = _open_sheet(path, sheet, stack, tell_sheet=tell_sheet)
        header: list[str] = []
        num_empty = 0
        for number, values in enumerate(_read_values(worksheet, path, stack), 1):
            place = f"{path}, row {number}"
            if number > MAX_ROWS:
                raise PalamError(f"{place}: a sheet has no more than {MAX_ROWS:,} rows")
            if not header:
                header = _header(values, place)
            elif all(value is None for value in values):
                num_empty += 1
            else:
                for empty in range(number - num_empty, number):
                    yield NumberedLine(empty, dict.fromkeys(header))
                num_empty = 0
                yield NumberedLine(number, _named(values, header, place))


def count_workbook(path: Path, sheet: str | int | None = None, *, tell_sheet: bool = True) -> int:
    """The number of rows that [`read_workbook`] gives; their values are not read.

    Args:
        path: the workbook.
        sheet: see [`read_workbook`].
        tell_sheet: see [`read_workbook`].

    Raises:
        PalamError: no workbook or a damaged one, or no such sheet.
    """
    with ExitStack() as stack:
        worksheet = _open_sheet(path, sheet, stack, tell_sheet=tell_sheet)
        try:
            with worksheet._get_source() as xml:  # openpyxl has no public way to a sheet's XML
                return SheetCounter().count(xml)
        except Exception as error:  # whatever zip and XML say of a damaged file
            raise _damaged(path, error) from None


def _open_sheet(
    path: Path,
    sheet: str | int | None,
    stack: ExitStack,
    *,
    tell_sheet: bool = False,
    data_only: bool = True,
) -> Any:
    """The sheet that is read, of a workbook that the stack closes."""
    workbook = _open(path, stack, data_only=data_only)
    worksheet = _find_sheet(workbook, sheet, path)
    names = [other.title for other in workbook.worksheets]
    if tell_sheet and sheet is None and len(names) > 1:
        tell(f'{path} has {len(names)} sheets: "{worksheet.title}" is read, of {shortened(names)}')
    worksheet.reset_dimensions()  # which some programs write wrongly: rows would be left out
    return worksheet


def _open(path: Path, stack: ExitStack, *, data_only: bool = True) -> Any:
    """The workbook, which the stack closes."""
    try:
        import openpyxl
    except ImportError:
        raise PalamError('.xlsx needs openpyxl: pip install "palam[tables]"') from None
    file = stack.enter_context(path.open("rb"))
    _check_is_workbook(file, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts that are not read: charts, validations
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=data_only)
    except Exception as error:  # whatever zip, XML and openpyxl say of a damaged file
        raise _damaged(path, error) from None
    stack.enter_context(closing(workbook))
    return workbook


def _check_is_workbook(file: IO[bytes], path: Path) -> None:
    beginning = file.read(len(OLE_BEGINNING))
    file.seek(0)
    if beginning == OLE_BEGINNING:
        raise PalamError(
            f"{path} is protected by a password, or an old workbook (.xls); "
            "save it as .xlsx without a password"
        )
    if not zipfile.is_zipfile(file):
        raise PalamError(f"{path} is damaged or no Excel workbook; save it as .xlsx anew")
    file.seek(0)


def _damaged(path: Path, error: Exception) -> PalamError:
    """One line for what a library says of a damaged file."""
    return PalamError(
        f"{path} is damaged or no Excel workbook ({first_line(error)}); save it as .xlsx anew"
    )


def _find_sheet(workbook: Any, sheet: str | int | None, path: Path) -> Any:
    """The sheet by name or number; by default the first that is shown."""
    worksheets = workbook.worksheets
    if not worksheets:
        raise PalamError(f"{path} has no sheet with cells")
    if sheet is None:
        shown = [worksheet for worksheet in worksheets if worksheet.sheet_state == "visible"]
        return (shown or worksheets)[0]
    for worksheet in worksheets:
        if worksheet.title == sheet:
            return worksheet
    if str(sheet).isascii() and str(sheet).isdigit() and 1 <= int(sheet) <= len(worksheets):
        return worksheets[int(sheet) - 1]
    names = [worksheet.title for worksheet in worksheets]
    raise PalamError(f'{path} has no sheet "{sheet}": it has {shortened(names)}')


def _may_have_formulas(path: Path) -> bool:
    """Whether any sheet's XML has a formula."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/") and _has_formula(archive, name, path):
                return True
    return False


def _has_formula(archive: zipfile.ZipFile, name: str, path: Path) -> bool:
    try:
        with archive.open(name) as file:
            end = b""
            while chunk := file.read(CHUNK_BYTES):
                if FORMULA.search(end + chunk):
                    return True
                end = chunk[-20:]
    except Exception as error:  # a damaged part of the archive
        raise _damaged(path, error) from None
    return False


def _read_values(worksheet: Any, path: Path, stack: ExitStack) -> Iterator[Sequence[Any]]:
    """The values of each row, which may be fewer or more than the header's."""
    if _may_have_formulas(path):
        originals = _open_sheet(path, worksheet.title, stack, data_only=False)
        return _computed_values(worksheet, originals, path)
    return _parse(worksheet, path, values_only=True)


def _computed_values(worksheet: Any, originals: Any, path: Path) -> Iterator[Sequence[Any]]:
    """The same of a sheet with formulas: one that no program has computed is refused."""
    rows = zip(
        _parse(worksheet, path, values_only=False),
        _parse(originals, path, values_only=True),
        strict=True,
    )
    for number, (cells, formulas) in enumerate(rows, 1):
        for cell, formula in zip(cells, formulas, strict=True):
            # The type of one that gives an empty text is not "n", a number.
            if cell.value is None and formula is not None and cell.data_type == "n":
                raise PalamError(
                    f"{path}, row {number}: the formula {str(formula)[:40]} has no saved value; "
                    "open the workbook in a spreadsheet program and save it"
                )
        yield [cell.value for cell in cells]


def _parse(worksheet: Any, path: Path, *, values_only: bool) -> Iterator[Sequence[Any]]:
    try:
        yield from worksheet.iter_rows(values_only=values_only)
    except Exception as error:  # whatever zip, XML and openpyxl say of a damaged file
        raise _damaged(path, error) from None


def _value(value: Any) -> Plain:
    if isinstance(value, str):
        return ESCAPE.sub(_unescape, value)
    return plain_value(value)


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def _header(values: Sequence[Any], place: str) -> list[str]:
    """The names of the columns; none if the row is empty."""
    names = [cell_text(_value(value)) for value in values]
    while names and not names[-1]:
        names.pop()
    return checked_header(names, place)


def _named(values: Sequence[Any], header: Sequence[str], place: str) -> dict[str, Any]:
    """The values by the header's names, empty ones for those that are missing at the end."""
    row: dict[str, Any] = dict.fromkeys(header)
    for number, value in enumerate(values):
        if number < len(header):
            row[header[number]] = _value(value)
        elif value is not None:
            raise PalamError(
                f"{place}: a value in column {column_letter(number)}, to which the header gives "
                "no name"
            )
    return row
