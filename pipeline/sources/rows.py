"""Rows of text files: delimited tables and JSON, each with the line it begins at, so that an error can name it.

Every line of a table becomes a row, a part of a quoted cell, or an error: a quote that is never closed takes in no rows.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, TextIO

from pipeline import storage
from pipeline.sources.listing_stats import ListingStats

COMMENT = "#"
DELIMITERS = ",;\t"
AUDIO_NAME = re.compile(r"\S.*\.(\w{2,5})$")
ID_NAME = re.compile(r"(?=\S*\d)\S+")  # a cell that may name a clip where file names have no suffix
csv.field_size_limit(2**26)  # characters; of a process. A longer cell takes in the rest of a table: its quote is open
Fields = dict[str, Any]  # one row: column or JSON key -> a cell, or any JSON value


class ListingError(ValueError):
    """A listing has an error; the message names its file and line."""

    def __init__(self, uri: str, line: int, problem: str) -> None:
        position = f", line {line}" if line else ""
        super().__init__(f"{uri.rpartition('/')[2]}{position}: {problem}")


class Record(NamedTuple):
    """One row of a delimited table."""

    line: int  # from 1, where it begins
    cells: list[str]


class Delimited(NamedTuple):
    """A delimited table that is open."""

    comments: list[str]  # the lines before the first record that begin with #
    records: Iterator[Record]  # the header among them, where there is one; rows of empty cells are left out


@contextmanager
def delimited(uri: str, stats: ListingStats) -> Iterator[Delimited]:
    """Open a table whose cells are separated by commas, semicolons or tabs, as its name or its first line shows.

    Rows of empty cells and lines that begin with # are counted as skipped. Raises ListingError, at once or while records
    are read, for text that is not UTF-8 and for a quote that takes in other rows.
    """
    with _text(uri) as text:
        lines = _lines(uri, text)
        comments: list[str] = []
        first = ""
        for first in lines:
            if not first.startswith(COMMENT):
                break
            comments.append(first)
            first = ""
        delimiter = "\t" if uri.removesuffix(".gz").endswith(".tsv") else max(DELIMITERS, key=first.count)
        rest = chain([first], lines) if first else iter(())
        yield Delimited(comments, _records(uri, rest, delimiter, len(comments), stats))


def json_rows(uri: str, stats: ListingStats) -> Iterator[tuple[int, Fields]]:
    """Yield (line, fields) of JSON Lines, of a JSON list, or of an object with a list `data`, as WavCaps has it.

    Raises ListingError for what is no JSON and for a row that is no object.
    """
    with _text(uri) as text:
        lines = _lines(uri, text)
        first_number, first = next(((n, line) for n, line in enumerate(lines, start=1) if line.strip()), (1, ""))
        if _begins_document(first):
            yield from _document(uri, first + "".join(lines))
            return
        for number, line in enumerate(chain([first], lines), start=first_number):
            if not line.strip():
                stats.skip("rows", "blank row", int(number > 1))
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise ListingError(uri, number, f"is no JSON: {error}") from None
            yield number, _object(uri, number, fields)


@contextmanager
def _text(uri: str) -> Iterator[TextIO]:
    """Open text. Raises ListingError for compressed data that the name does not announce, and for damaged gzip data."""
    start = storage.read_start(uri, 4)
    name = uri.rpartition("/")[2]
    if start[:2] == b"\x1f\x8b" and not uri.endswith(".gz"):
        raise ListingError(uri, 0, f"is compressed by gzip; name it {name}.gz or unpack it: gunzip -c {name} > plain")
    if start == b"PK\x03\x04":
        raise ListingError(uri, 0, f"is a zip archive; unpack it and give what is inside: unzip {name}")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ListingError(uri, 0, f"is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}")
    try:
        with storage.open_text(uri) as text:
            yield text
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ListingError(uri, 0, f"is no whole gzip file ({error}); download or pack it again") from None


def _lines(uri: str, text: TextIO) -> Iterator[str]:
    try:
        yield from text
    except UnicodeDecodeError:
        raise _not_utf8(uri) from None


def _not_utf8(uri: str) -> ListingError:
    """Return the error that names the first byte which is not UTF-8; the file is read again to find it."""
    name = uri.rpartition("/")[2]
    data = storage.read(uri)
    for number, line in enumerate((gzip.decompress(data) if uri.endswith(".gz") else data).split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode()) + 1
            remedy = f"if it is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {name} > utf8-{name}"
            return ListingError(uri, number, f"column {column}: byte 0x{line[error.start]:02x} is not UTF-8; {remedy}")
    return ListingError(uri, 0, "is not UTF-8")


class _LineRecorder:
    """Passes lines on to the CSV reader, but for comments between records; keeps those of the record that is being read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.comments = 0  # before that record
        self.kept: list[str] = []

    def __iter__(self) -> "_LineRecorder":
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        while line.startswith(COMMENT) and not self.kept:
            self.comments += 1
            line = next(self.lines)
        self.kept.append(line)
        return line

    def take(self) -> tuple[int, list[str]]:
        comments, kept = self.comments, self.kept
        self.comments, self.kept = 0, []
        return comments, kept


def _records(uri: str, lines: Iterator[str], delimiter: str, before: int, stats: ListingStats) -> Iterator[Record]:
    recorder = _LineRecorder(lines)
    reader = csv.reader(recorder, delimiter=delimiter, skipinitialspace=True)
    line, record_lines, width = before + 1, [""], 0
    try:
        for cells in reader:
            comments, record_lines = recorder.take()
            stats.skip("rows", "comment", comments)
            line += comments
            if any(map(str.strip, cells)):
                if len(record_lines) > 1:
                    _check_quoted(uri, line, record_lines, delimiter, width or len(cells))
                if width and len(cells) > width and any(map(str.strip, cells[width:])):
                    what = f"has {len(cells)} cells and the first row has {width}"
                    raise ListingError(uri, line, f"{what}; put cells that hold the separator {delimiter!r} in quotes")
                width = width or len(cells)
                yield Record(line, cells)
            else:
                stats.skip("rows", "blank row", int(width > 0))
            line += len(record_lines)
    except csv.Error as error:
        comments, record_lines = recorder.take()
        raise ListingError(
            uri, line + comments + _quoted_line(record_lines), f"{error}; is a quote left open there?"
        ) from None
    stats.skip("rows", "comment", recorder.comments)
    _check_closed(uri, line - len(record_lines), record_lines, delimiter)


def _check_quoted(uri: str, line: int, lines: list[str], delimiter: str, width: int) -> None:
    """Raise where a quoted cell of several lines looks like rows that an unclosed quote took in."""
    first = lines[0].replace('"', "").split(delimiter)
    for number, text in enumerate(lines[1:], start=1):
        inside = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
        plain = text.replace('"', "").split(delimiter)
        if any(len(cells) == width and any(map(_alike, first, cells)) for cells in (inside, plain)):
            problem = f"the quote that opens here takes in line {line + number}; close it"
            raise ListingError(uri, line + _quoted_line(lines), problem)
    _check_closed(uri, line, lines, delimiter)


def _alike(one: str, other: str) -> bool:
    """Return whether two cells of a column both name a clip: by the same suffix, or both by an id."""
    names = AUDIO_NAME.fullmatch(one.strip()), AUDIO_NAME.fullmatch(other.strip())
    if names[0] and names[1]:
        return names[0][1] == names[1][1]
    return not any(names) and all(ID_NAME.fullmatch(cell.strip()) for cell in (one, other))


def _check_closed(uri: str, line: int, lines: list[str], delimiter: str) -> None:
    """Raise where the lines of a record end inside a quote."""
    try:
        list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            problem = "the quote that opens here is never closed; close it, or double quotes inside a quoted cell"
            raise ListingError(uri, line + _quoted_line(lines), problem) from None


def _quoted_line(lines: list[str]) -> int:
    """Return which of the lines of a record, from 0, opens a quote that it does not close."""
    return next((i for i, text in enumerate(lines) if text.count('"') % 2), 0)


def _begins_document(first: str) -> bool:
    """Return whether a file is one JSON document, by its first line, and not JSON Lines."""
    try:
        fields = json.loads(first or "{}")
    except ValueError:
        return True  # a document over several lines, or no JSON, which the parser reports
    return not isinstance(fields, dict) or isinstance(fields.get("data"), list)


def _document(uri: str, text: str) -> Iterator[tuple[int, Fields]]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ListingError(uri, 0, f"is no JSON: {error}") from None
    rows = document.get("data") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise ListingError(uri, 0, "has no list of clips; give JSON Lines, a list of objects, or an object with `data`")
    yield from ((0, _object(uri, 0, fields)) for fields in rows)


def _object(uri: str, line: int, fields: Any) -> Fields:
    if not isinstance(fields, dict):
        raise ListingError(uri, line, f"want an object for each clip, got {str(fields)[:60]!r}")
    return fields
