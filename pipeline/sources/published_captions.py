"""Captions that others published for clips of YouTube recordings: AudioSetCaps, Auto-ACD, WavCaps and the like.

A CSV or TSV with a header, JSON Lines, a JSON list, or an object with a list `data`. A row names its clip by YouTube id:
in a column of ids, or as a file such as `Y<id>.wav`, `<id>_30000_40000` or `Y<id>_30.000_40.000.wav`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.sources import columns
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.rows import Fields, delimited, json_rows
from pipeline.sources.tables import CAPTION_SEPARATOR, number, text_of, texts

NAMES = (*columns.ROLES["youtube"], "id", "audio_id", "name", *columns.ROLES["file"])
ID = re.compile(r"(?:.*/)?Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?(?:\.[a-zA-Z]\w*)?")
MAX_CLIP_S = 600  # a longer difference between the numbers of a name is one of milliseconds


class PublishedCaptions(NamedTuple):
    """The captions of one row."""

    youtube_id: str
    start_s: float | None  # of the clip in its recording; None where the row does not state it
    texts: list[str]


def read(uri: str, stats: ListingStats) -> Iterator[PublishedCaptions]:
    """Yield the captions of a file; rows without an id or a caption are counted in `stats`.

    Raises:
        ListingError: naming file and line, for what cannot be understood.
    """
    if uri.lower().endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz")):
        yield from _captions(uri, ((line, columns.lowered(fields)) for line, fields in json_rows(uri, stats)), stats)
        return
    with delimited(uri, stats) as table:
        first = next(table.records, None)
        if first is not None:
            header = [columns.normalise(cell) for cell in first.cells]
            rows = ((row.line, dict(zip(header, row.cells, strict=False))) for row in table.records)
            yield from _captions(uri, rows, stats)


def parse_name(name: str) -> tuple[str, float | None]:
    """Return the YouTube id in a name, or '', and the start of the clip in seconds, or None."""
    found = ID.fullmatch(name.strip())
    if not found:
        return "", None
    start, end = found[2], found[3]
    if start is None:
        return found[1], None
    in_ms = end is not None and float(end) - float(start) > MAX_CLIP_S
    return found[1], float(start) / (1000 if in_ms else 1)


def _captions(uri: str, rows: Iterable[tuple[int, Fields]], stats: ListingStats) -> Iterator[PublishedCaptions]:
    for line, fields in rows:
        name = next((text_of(fields[column]) for column in NAMES if fields.get(column)), "")
        youtube_id, start_s = parse_name(name)
        found = [text for column in columns.ROLES["captions"] for text in texts(fields.get(column), CAPTION_SEPARATOR)]
        if not youtube_id:
            stats.skip("rows", "no YouTube id")
        elif not found:
            stats.skip("rows", "no caption")
        else:
            stats.read["rows"] += 1
            column = next((column for column in columns.ROLES["start"] if text_of(fields.get(column))), "")
            yield PublishedCaptions(youtube_id, number(uri, line, column, fields[column]) if column else start_s, found)
