"""Tables as lines of text: CSV, of which the delimiter is found, and tab-separated values."""

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from palam.errors import PalamError
from palam.tasks.decoding import BYTE_ORDER_MARK, MAX_LINE_BYTES
from palam.tasks.formats import Lines, NumberedLine, column_letter, shortened

DELIMITERS = (",", ";", "\t", "|")
"""The delimiters of CSV that are looked for."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""Excel's first line, which names the delimiter."""
SNIFFED_LINES = 20
"""Lines by which the delimiter is found."""
GUESSED_FROM = 4
"""Lines by which a table is told from plain text; a stream is kept waiting for no more."""
PLAIN_NAME = re.compile(r"\w([\w.\-]{0,40}\w)?")
"""A cell that may well be a column's name."""
QUOTED_HEADER = re.compile(r'"([^"]|"")*"(\t"([^"]|"")*")*(\r|\n|$)')
"""Names in quotation marks, between tabs."""
UNCLOSED = "unexpected end of data"
"""What `csv` says of a quoted cell that the lines do not close."""


class Record(NamedTuple):
    """The cells of one row.

    Attributes:
        line: the line that it ends in, from 1.
        cells: none for a blank line.
        begins_file: a byte order mark stands in front of it, as where files were joined.
    """

    line: int
    cells: list[str]
    begins_file: bool = False


def parse_csv(lines: Lines, source: str) -> Iterator[NumberedLine]:
    """The rows of CSV: quoted as RFC 4180 has it, with the delimiter that its beginning tells."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    delimiter = _take_separator_line(lines) or find_delimiter(lines)
    if delimiter == "\t":
        return _rows(_tab_records(lines, source), source)
    return _rows(_csv_records(lines, source, delimiter), source)


def parse_tsv(lines: Lines, source: str) -> Iterator[NumberedLine]:
    """The rows of tab-separated values.

    A cell may be quoted, as spreadsheets do; a quotation mark that is none such is a character. A
    header whose names are all quoted says that cells over several lines are quoted too.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    _take_separator_line(lines)
    return _rows(_tab_records(lines, source), source)


def find_delimiter(lines: Lines) -> str:
    """The delimiter of the header; where it has several, the one with which the rows agree.

    Of several, it is the one that makes more cells, and a comma last.
    """
    lines.skip_blank()
    beginning = lines.peek()
    if beginning and beginning[0].count('"') % 2:  # a name over several lines
        beginning = lines.peek(SNIFFED_LINES)
    candidates = [sign for sign in DELIMITERS if len(_header(beginning, sign)) > 1]
    if len(candidates) < 2:
        return candidates[0] if candidates else DELIMITERS[0]
    beginning = lines.peek(SNIFFED_LINES)

    def likelihood(sign: str) -> tuple[float, int, bool]:
        records = _records(beginning, sign)
        # A comma may stand in a name and, for a decimal point, in each row; the others seldom do.
        return _agreement(records), len(records[0]), sign != ","

    return max(candidates, key=likelihood)


def table_columns(lines: Lines, column: str, *, delimiters: Sequence[str]) -> list[str]:
    """The columns of what looks like a table by its beginning; none of what looks like plain text.

    It does if its first line has `column` among its cells, or nothing but short names in as many
    cells as all the other lines have; with tabs, any names.

    Args:
        lines: are looked at, not taken.
        column: a name by which a header is told.
        delimiters: of which one must part the cells.
    """
    beginning = [line for line in lines.peek(GUESSED_FROM) if line.strip()]
    if beginning and SEPARATOR_LINE.fullmatch(beginning[0]):
        return _header(beginning[1:], beginning[0].strip().strip('"')[4:]) or [""]
    for sign in delimiters:
        names = _header(beginning, sign)
        if column in [name.strip() for name in names]:
            return names
        if len(names) < 2:
            continue
        are_names = all(PLAIN_NAME.fullmatch(name) for name in names)
        may_be_header = are_names or sign == "\t"
        if may_be_header and _all_agree(beginning, sign):
            return names
    return []


def _header(beginning: Sequence[str], delimiter: str) -> list[str]:
    """The cells of the first record."""
    records = _records(beginning, delimiter)
    if not records:
        return []
    return records[0]


def _records(beginning: Sequence[str], delimiter: str) -> list[list[str]]:
    """The records of some lines; where they are no such CSV, those before."""
    lines = [line.lstrip(BYTE_ORDER_MARK) for line in beginning]
    reader = csv.reader(lines, delimiter=delimiter)
    records = []
    with contextlib.suppress(csv.Error):
        for cells in reader:
            if cells:
                records.append(cells)
    return records


def _agreement(records: Sequence[Sequence[str]]) -> float:
    """The share of records that have as many cells as the first one."""
    widths = [len(cells) for cells in records]
    return widths.count(widths[0]) / len(widths)


def _all_agree(beginning: Sequence[str], delimiter: str) -> bool:
    """Whether all of two or more lines have as many cells, with quoted cells or without."""
    quoted = _records(beginning, delimiter)
    plain = [line.split(delimiter) for line in beginning]
    return any(len(records) > 1 and _agreement(records) == 1 for records in (quoted, plain))


def _take_separator_line(lines: Lines) -> str | None:
    """The delimiter that Excel's first line names, or None; the line is taken."""
    for line in lines.peek():
        match = SEPARATOR_LINE.fullmatch(line)
        if match:
            next(lines)
            return match[1]
    return None


class CsvFeed(Iterator[str]):
    """Lines for a `csv.reader`; a byte order mark in front of a record is dropped, and noted.

    Attributes:
        begins_file: whether there was one in front of this record.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._in_record = False
        self.begins_file = False

    def begin_record(self) -> None:
        """The next line begins a record."""
        self._in_record = False
        self.begins_file = False

    def __next__(self) -> str:
        line = next(self._lines)
        if not self._in_record:
            self._in_record = True
            self.begins_file = line.startswith(BYTE_ORDER_MARK)
            return line.lstrip(BYTE_ORDER_MARK)
        return line


def _csv_records(lines: Lines, source: str, delimiter: str) -> Iterator[Record]:
    feed = CsvFeed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin_record()
        first_line = lines.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = f"{source}, line {first_line}: not CSV: {error}"
            if lines.number > first_line:  # a quotation mark that is not closed, or too late
                message += f" in line {lines.number}"
            raise PalamError(message) from None
        if cells is None:
            return
        yield Record(
            line=lines.number,
            cells=cells,
            begins_file=feed.begins_file,
        )


def _tab_records(lines: Lines, source: str) -> Iterator[Record]:
    width = 0
    lines.skip_blank()
    header_is_quoted = _header_is_quoted(lines)
    while lines.peek():
        if _is_quoted(lines, width, header_is_quoted):
            quoted = _csv_records(lines, source, "\t")
            record = next(quoted)
        else:
            record = _plain_record(lines)
        if not width:
            width = len(record.cells)
        yield record


def _plain_record(lines: Lines) -> Record:
    """The next line, parted at its tabs."""
    line = next(lines)
    text = line.lstrip(BYTE_ORDER_MARK).rstrip("\r\n")
    return Record(
        line=lines.number,
        cells=text.split("\t") if text else [],
        begins_file=line.startswith(BYTE_ORDER_MARK),
    )


def _header_is_quoted(lines: Lines) -> bool:
    """Whether each name of the header is in quotation marks."""
    following = lines.peek()
    if not following or not following[0].lstrip(BYTE_ORDER_MARK).startswith('"'):
        return False
    beginning = "".join(lines.peek(SNIFFED_LINES)).lstrip(BYTE_ORDER_MARK)
    return QUOTED_HEADER.match(beginning) is not None


def _is_quoted(lines: Lines, width: int, header_is_quoted: bool) -> bool:
    """Whether the quotation marks of the next line quote its cells, rather than being text.

    They do not if no cell begins with one, or if more stands behind a quoted cell. Nor do they,
    unless the header is quoted as well, if a cell would go on in the next line, and both lines have
    the header's number of cells already (where that is one: if the cell is not closed soon).
    """
    (line,) = lines.peek()
    cells = line.lstrip(BYTE_ORDER_MARK).split("\t")
    if not any(cell.startswith('"') for cell in cells):
        return False
    error = _quoting_error([line])
    if UNCLOSED not in error:
        return not error
    if header_is_quoted:
        return True
    if width == 1:
        return not _quoting_error(lines.peek(SNIFFED_LINES))
    widths = [following.count("\t") + 1 for following in lines.peek(2)]
    return any(number != width for number in widths)


def _quoting_error(beginning: Sequence[str]) -> str:
    """What is wrong with the quotes of the record that some lines begin with; empty if nothing."""
    first, *others = beginning
    try:
        next(csv.reader([first.lstrip(BYTE_ORDER_MARK), *others], delimiter="\t", strict=True))
    except csv.Error as error:
        return str(error)
    return ""


def _rows(records: Iterator[Record], source: str) -> Iterator[NumberedLine]:
    """The rows below the header; a blank line is one where there is one column."""
    header: list[str] | None = None
    for line, cells, begins_file in records:
        place = f"{source}, line {line}"
        if header is None:
            header = checked_header(_without_empty_end(cells, 1), place) if cells else None
            continue
        if not cells and len(header) == 1:
            cells = [""]
        cells = _without_empty_end(cells, len(header))
        if not cells or (begins_file and cells == header):
            continue
        _check_row(cells, header, place)
        yield NumberedLine(line, dict(zip(header, cells, strict=True)))


def _without_empty_end(cells: list[str], width: int) -> list[str]:
    """The cells, without empty ones after the first `width`."""
    num_cells = len(cells)
    while num_cells > width and not cells[num_cells - 1]:
        num_cells -= 1
    return cells[:num_cells]


def checked_header(names: list[str], place: str) -> list[str]:
    """The names of a table's columns, each a different one.

    A column without a name, such as the index that pandas writes, is called by its letter, as in a
    spreadsheet: `column A`.

    Raises:
        PalamError: a name that stands there twice.
    """
    complete = [name or f"column {column_letter(number)}" for number, name in enumerate(names)]
    if len(set(complete)) < len(complete):
        raise PalamError(f"{place}: the header names a column twice: {shortened(names)}")
    return complete


def _check_row(cells: list[str], header: list[str], place: str) -> None:
    if len(cells) != len(header):
        raise PalamError(f"{place}: {len(cells)} columns where the header has {len(header)}")
    if cells == header and len(header) > 1:
        raise PalamError(f"{place}: the header again; take it out, or read the files one by one")
