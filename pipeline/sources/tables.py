"""Rows with a column of files -> clips: CSV and TSV, JSON Lines, NeMo and Lhotse manifests, tables without audio bytes.

`start` with `end` or `duration` cuts a clip out of its file, unless a column gives the clip's id in an archive (YouTube,
Freesound): then they are times in that recording, and the file holds just the clip.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.sources import columns
from pipeline.sources.audio_folder import AudioFolder
from pipeline.sources.clip import Clip, disambiguated_key, find_recording_id, key_of
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.rows import ListingError

LABEL_SEPARATOR = "|"  # display names contain commas and semicolons are taken by other tools
CAPTION_SEPARATOR = "||"
NUMBERED = re.compile(r"caption_\d+")  # Clotho's columns
Row = tuple[int, Mapping[str, Any]]  # line, and {normalised column: value}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a source is listed."""

    columns: Mapping[str, str] = field(default_factory=dict)  # role -> column, as --columns gives them
    holds_all: bool = False  # hold all rows of a table, to merge rows of one clip that lie apart
    prefix: str = ""  # of the keys of packed clips, where several files hold the same names


class RowReader:
    """Turns the rows of one table into clips."""

    def __init__(self, uri: str, stats: ListingStats, options: Options) -> None:
        self.uri, self.stats, self.options = uri, stats, options
        self.files = AudioFolder(*uri.rpartition("/")[::2], stats)
        self.locate: Callable[[Mapping[str, Any]], str] | None = None  # row -> URI of its audio, in published layouts
        self.names: dict[str, str] = {}  # {mid: display name}, where a table has only ids
        self.label_separator = LABEL_SEPARATOR
        self._chosen: dict[tuple[str, ...], dict[str, str]] = {}

    def clips(self, rows: Iterable[Row]) -> Iterator[Clip]:
        """Yield the clips; the rows of one clip become one clip, with all of their captions and labels."""
        clips = ((line, self.clip(line, fields)) for line, fields in rows)
        identified = (((clip.uri, clip.cut_start_s, clip.cut_end_s), line, clip) for line, clip in clips)
        yield from merge(identified, self.uri, self.stats, self.options.holds_all)

    def clip(self, line: int, fields: Mapping[str, Any]) -> Clip:
        """Return the clip of one row. Raises ListingError for a row that names no file, and for a time that is no number."""
        self.stats.read["rows"] += 1
        role = self.roles(fields)
        file = _path(fields.get(role.get("file", "")))
        if not file:
            raise ListingError(self.uri, line, "names no file")
        cells = {name: fields.get(column) for name, column in role.items()}
        youtube, freesound = (text_of(cells.get(name)) for name in ("youtube", "freesound"))
        start_s, end_s = self._times(line, cells)
        is_cut = "start" in role and not (youtube or freesound)
        mids = texts(cells.get("mids"), ",")
        key = key_of(file)
        recording_id = _archive_id(youtube, freesound, role, file)
        return Clip(
            key=_timed(key, start_s, end_s) if is_cut else key,
            uri=self.locate(fields) if self.locate else self.files.locate(file),
            source_id=file,
            recording_id=recording_id or find_recording_id(text_of(cells.get("source"))) or find_recording_id(file),
            start_s=start_s,
            end_s=end_s,
            cut_start_s=start_s if is_cut else 0.0,
            cut_end_s=end_s if is_cut else 0.0,
            tags=self._tags(cells, mids),
            mids=tuple(mids),
            captions=tuple(texts(cells.get("captions"), CAPTION_SEPARATOR) or numbered(fields)),
            fold=text_of(cells.get("fold")),
        )

    def roles(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return {role: column} of a row. Raises ListingError when no column names a file."""
        header = tuple(fields)
        if header not in self._chosen:
            chosen = columns.choose(self.uri, header, self.options.columns)
            if "file" not in chosen:
                remedy = f"want one of {list(columns.ROLES['file'])}, or name yours: --columns {columns.COLUMNS_HINT}"
                raise ListingError(self.uri, 0, f"no file column: columns are {list(header)}, {remedy}")
            if "start" not in chosen:  # an end or a duration without a start cuts nothing
                chosen = {role: name for role, name in chosen.items() if role not in ("end", "duration")}
            note_columns(self.stats, header, chosen)
            self._chosen[header] = chosen
        return self._chosen[header]

    def _tags(self, cells: Mapping[str, Any], mids: list[str]) -> tuple[str, ...]:
        tags = [tag.replace("_", " ") for tag in texts(cells.get("labels"), self.label_separator)]
        return tuple(dict.fromkeys(tags)) or named(mids, self.names, self.stats)

    def _times(self, line: int, cells: Mapping[str, Any]) -> tuple[float, float]:
        """Return where a clip begins and ends, seconds; 0 where that is not listed."""
        start_s, end_s, duration_s = (number(self.uri, line, n, cells.get(n)) for n in ("start", "end", "duration"))
        end_s = end_s or (start_s + duration_s if duration_s else 0.0)
        if start_s < 0 or (end_s and end_s <= start_s):
            raise ListingError(self.uri, line, f"a clip from {start_s} s to {end_s} s cannot be")
        return start_s, end_s


def note_columns(stats: ListingStats, header: Iterable[str], chosen: Mapping[str, str]) -> None:
    """Remember which columns of a table are used, and which are not."""
    stats.columns |= chosen
    used = set(chosen.values())
    stats.unused_columns |= {
        name: None for name in header if name and name not in used and not NUMBERED.fullmatch(name)
    }


def named(mids: Iterable[str], names: Mapping[str, str], stats: ListingStats) -> tuple[str, ...]:
    """Return the display names of ids; ids without a name are counted, unless there are no names at all."""
    if not names:
        return ()
    mids = tuple(mids)
    stats.unknown_labels.update(mid for mid in mids if mid not in names)
    return tuple(names[mid] for mid in mids if mid in names)


def merge(rows: Iterable[tuple[Hashable, int, Clip]], uri: str, stats: ListingStats, holds_all: bool) -> Iterator[Clip]:
    """Yield the clips of rows; rows of one clip become one clip, with all of their captions and labels.

    Args:
        rows: identity of the clip, line, and clip, of each row.
        uri: of the table.
        stats: counts the merged rows.
        holds_all: keep all clips in memory, as rows of one clip may lie apart; otherwise they are neighbours.

    Raises:
        ListingError: as `merged` does.
    """
    by_identity: dict[Hashable, Clip] = {}
    for identity, line, clip in rows:
        if identity in by_identity:
            stats.merged += 1
            by_identity[identity] = merged(by_identity[identity], clip, uri, line)
            continue
        if not holds_all:
            yield from by_identity.values()
            by_identity.clear()
        by_identity[identity] = clip
    yield from by_identity.values()


def merged(clip: Clip, second: Clip, uri: str, line: int) -> Clip:
    """Return a clip with the captions, labels, ids and events of a further row of it.

    Raises:
        ListingError: naming the line, when the row puts the clip into another fold.
    """
    if clip.fold != second.fold:
        raise ListingError(uri, line, f"{clip.source_id!r} is in fold {second.fold!r} here and in {clip.fold!r} above")
    tags = tuple(dict.fromkeys((*clip.tags, *second.tags)))
    mids = tuple(dict.fromkeys((*clip.mids, *second.mids)))
    adds_labels_only = tags != clip.tags and set(second.captions) <= set(clip.captions)  # a row for each label
    captions = clip.captions if adds_labels_only else clip.captions + second.captions  # two people may write the same
    return dataclasses.replace(clip, captions=captions, tags=tags, mids=mids, events=clip.events + second.events)


def distinct(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield clips of a table whose names may give equal keys; equal keys get the hash of the name at their end."""
    listed = list(clips)
    counts = Counter(clip.key for clip in listed)
    for clip in listed:
        yield dataclasses.replace(clip, key=disambiguated_key(clip.source_id)) if counts[clip.key] > 1 else clip


def number(uri: str, line: int, name: str, value: Any) -> float:
    """Return a time in seconds; 0 for an empty cell. Raises ListingError naming the column and the value."""
    if not text_of(value):
        return 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.inf
    if math.isinf(seconds):
        raise ListingError(uri, line, f"{name} is {value!r}, and must be a number of seconds")
    return 0.0 if math.isnan(seconds) else seconds


def numbered(fields: Mapping[str, Any]) -> list[str]:
    """Return the captions of a row that has them in columns caption_1, caption_2, ..."""
    return [text for name, value in fields.items() if NUMBERED.fullmatch(name) and (text := text_of(value))]


def text_of(value: Any) -> str:
    """Return a cell as text, '' for none and for the NaN that pandas writes in its place."""
    return "" if value is None or value != value else str(value).strip()


def _timed(key: str, start_s: float, end_s: float) -> str:
    """Return the key of a part of a file."""
    return key_of(f"{key}_{round(start_s * 1000)}" + (f"_{round(end_s * 1000)}" if end_s else ""))


def _path(value: Any) -> str:
    """Return the file that a cell names: text, or an object with a path, as Hugging Face tables have it."""
    if isinstance(value, Mapping):
        value = value.get("path")
    path = text_of(value)
    if "\\" in path and "/" not in path:  # written on Windows
        path = path.replace("\\", "/")
    return path.removeprefix("./")


def texts(value: Any, separator: str) -> list[str]:
    """Return the texts of a cell: parts of a text, or the texts of a list; numbers are no texts."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator) if part.strip()]
    values = value if isinstance(value, list | tuple) else ()
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


def _archive_id(youtube: str, freesound: str, role: Mapping[str, str], file: str) -> str:
    if youtube:
        return f"youtube:{youtube}"
    if freesound:
        return f"freesound:{freesound}"
    return f"freesound:{file}" if role.get("file") == "fname" and file.isdigit() else ""  # FSD50K's names
