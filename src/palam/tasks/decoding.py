"""Bytes as lines of text: which encoding, and what is no text at all."""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

from palam.errors import PalamError

BYTE_ORDER_MARK = "\ufeff"
MAX_LINE_BYTES = 2**28
"""The longest line that is read: 256 MB."""
WIDE_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings other than UTF-8, by the byte order mark that tells them."""
SAVE_AS_TEXT = "save it as .csv, .jsonl or .txt"
UNPACK = "unpack it"
NO_TEXT = {
    b"PK\x03\x04": ("a zip file, as Excel's workbooks are", "a workbook's name ends in .xlsx"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook or another Office file", "save it as .xlsx"),
    b"PAR1": ("a Parquet file", "let its name end in .parquet"),
    b"\x1f\x8b": ("compressed by gzip", UNPACK),
    b"BZh": ("compressed by bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed by xz", UNPACK),
    b"%PDF-": ("a PDF", SAVE_AS_TEXT),
}
"""Files that are no text, by the bytes that they begin with; and what to do with them."""


def decoded_lines(stream: Iterable[bytes], source: str) -> Iterator[str]:
    """The lines of a file as text, without the byte order mark in front of the first.

    UTF-8, or UTF-16 and UTF-32 with a byte order mark (Excel's "Unicode text"). Lines end with a
    line feed; where the whole file has none, with a carriage return.

    Args:
        stream: a file that is open for bytes, or its lines.
        source: the file's name, for messages.

    Raises:
        PalamError: bytes that are no text; names the line.
    """
    byte_lines = _byte_lines(stream, source)
    first = next(byte_lines, b"")
    for beginning, (kind, advice) in NO_TEXT.items():
        if first.startswith(beginning):
            raise PalamError(f"{source} is {kind}, no text; {advice}")
    byte_lines = chain([first], byte_lines) if first else byte_lines
    lines = _decode_utf8(byte_lines, source)
    for mark, encoding in WIDE_ENCODINGS.items():
        if first.startswith(mark):
            lines = _decode_wide(byte_lines, encoding, source)
            break
    return _with_old_line_ends(lines)


def _byte_lines(stream: Iterable[bytes], source: str) -> Iterator[bytes]:
    """The lines of a file, none of them without end."""
    readline = getattr(stream, "readline", None)
    if readline is None:
        return iter(stream)
    return _bounded(iter(partial(readline, MAX_LINE_BYTES + 1), b""), source)


def _bounded(lines: Iterator[bytes], source: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_BYTES:
            megabytes = MAX_LINE_BYTES // 10**6
            raise PalamError(f"{source}, line {number}: longer than {megabytes} MB")
        yield line


def _decode_utf8(lines: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        place = f"{source}, line {number}"
        if b"\0" in line:
            raise PalamError(f"{place}: holds a NUL byte; save it as UTF-8 text")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PalamError(
                f"{place}: not UTF-8 (byte {error.start + 1}); save it as UTF-8"
            ) from None
        yield text.lstrip(BYTE_ORDER_MARK) if number == 1 else text


def _decode_wide(chunks: Iterable[bytes], encoding: str, source: str) -> Iterator[str]:
    """The lines of UTF-16 or UTF-32, whose chunks end within a character."""
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 1
    pending = ""
    for chunk in chain(chunks, [None]):
        try:
            text = decoder.decode(chunk or b"", final=chunk is None)
        except UnicodeError:
            raise PalamError(f"{source}, line {number}: not {encoding.upper()}") from None
        *lines, pending = (pending + text).split("\n")
        for line in lines:
            yield _without_nul(f"{line}\n", number, source)
            number += 1
    if pending:
        yield _without_nul(pending, number, source)


def _without_nul(line: str, number: int, source: str) -> str:
    if "\0" in line:
        raise PalamError(f"{source}, line {number}: holds a NUL character; save it as text")
    return line.lstrip(BYTE_ORDER_MARK) if number == 1 else line


def _with_old_line_ends(lines: Iterator[str]) -> Iterator[str]:
    """The lines; a file without a line feed is parted at its carriage returns, as old Macs do."""
    for line in lines:
        if line.endswith("\n"):
            yield line
        else:  # the last line, or all of the file
            yield from re.findall(r"[^\r]*\r|[^\r]+", line)
