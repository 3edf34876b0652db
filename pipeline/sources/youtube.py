"""Tables that name a clip by its YouTube id and start: AudioSet's segments, weak and strong, AudioCaps, MusicCaps, VGGSound.

The audio lies beside the table under the usual names (audio_folder.py); a file holds just its clip.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline import storage
from pipeline.sources import audioset, columns, strong_labels
from pipeline.sources.audio_folder import AudioFolder
from pipeline.sources.clip import Clip, Event
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.rows import Fields, ListingError, Record, delimited
from pipeline.sources.tables import (
    CAPTION_SEPARATOR,
    LABEL_SEPARATOR,
    Options,
    Row,
    merge,
    named,
    number,
    text_of,
    texts,
)

CLIP_S = 10.0  # length of a clip whose end is not listed
CAPTIONS_OF_SEGMENTS = "_captions.csv"
SEGMENT_COLUMNS = ("ytid", "start_seconds", "end_seconds", "positive_labels")
STRONG_COLUMNS = set(strong_labels.COLUMNS)
ID = re.compile(r"[\w-]{11}")
TEST_NAME = re.compile(r"([\w-]{11})_(\d{6})\.\w+")  # VGGSound's list of test clips


def is_youtube(chosen: Mapping[str, str]) -> bool:
    """Return whether a table names its clips by YouTube id and start, given {role: column}."""
    return {"youtube", "start"} <= set(chosen) and "file" not in chosen


def is_vggsound(cells: list[str]) -> bool:
    """Return whether a first row is VGGSound's, which has no header: see `YoutubeTable.vggsound`."""
    if len(cells) == 4:
        return bool(ID.fullmatch(cells[0])) and cells[1].strip().isdigit()
    return len(cells) == 2 and bool(TEST_NAME.fullmatch(cells[0]))


class YoutubeTable:
    """Turns the rows of one table into clips."""

    def __init__(self, uri: str, stats: ListingStats, options: Options) -> None:
        self.uri, self.stats, self.options = uri, stats, options
        self.folder, _, self.name = uri.rpartition("/")
        self.files = AudioFolder(self.folder, self.name, stats)
        self.names: dict[str, str] = {}  # {mid: display name}

    def clip(self, segment: audioset.Segment, **fields: Any) -> Clip:
        """Return the clip of a segment. Ids without a name are counted, and the clip keeps its other tags."""
        listed = {"source_id": segment.ytid, "tags": named(segment.mids, self.names, self.stats)}
        return Clip(
            key=audioset.key(segment.ytid, segment.start_s, segment.end_s),
            uri=self.files.find(segment),
            recording_id=f"youtube:{segment.ytid}",
            start_s=segment.start_s,
            end_s=segment.end_s,
            mids=segment.mids,
            **{**listed, **fields},
        )

    def segments(self, records: Iterable[Record]) -> Iterator[Clip]:
        """Yield the clips of an official segments file, whose header is a comment."""
        self.names = self._class_names(required=True)
        captions = self._captions()
        events = self._strong_labels()
        self.stats.columns |= {
            "youtube": "ytid",
            "start": "start_seconds",
            "end": "end_seconds",
            "mids": "positive_labels",
        }
        for line, cells in records:
            self.stats.read["rows"] += 1
            if len(cells) != len(SEGMENT_COLUMNS):
                raise ListingError(self.uri, line, f"want {', '.join(SEGMENT_COLUMNS)}; got {cells}")
            segment = self._segment(line, *cells)
            yield self.clip(
                segment,
                captions=tuple(captions.get((segment.ytid, segment.start_s), ())),
                events=tuple(events.get((segment.ytid, round(segment.start_s * 1000)), ())),
            )

    def rows(self, rows: Iterable[Row], chosen: Mapping[str, str]) -> Iterator[Clip]:
        """Yield the clips of a table with a header, all captions of a clip together; {role: column} are given."""
        captioned = "captions" in chosen
        labels: dict[str, tuple[str, ...]] = {}
        if "mids" in chosen:
            self.names = self._class_names(required=not (captioned or "labels" in chosen))
        elif captioned:
            rows = list(rows)  # to look up the labels of all at once
            labels = self._labels({text_of(fields.get(chosen["youtube"])) for _, fields in rows})
        by_role = ((line, {role: fields.get(column) for role, column in chosen.items()}) for line, fields in rows)
        clips = ((line, self._row(line, cells, labels)) for line, cells in by_role)
        holds_all = captioned or self.options.holds_all  # captions of one clip may lie apart
        yield from merge(((clip.key, line, clip) for line, clip in clips), self.uri, self.stats, holds_all)

    def strong(self, rows: Iterable[Row]) -> Iterator[Clip]:
        """Yield the clips of AudioSet's strong labels: the rows are events of a clip `<ytid>_<start in ms>`."""
        self.names = strong_labels.read_names(self.folder) or self._class_names(required=True)
        self.stats.columns |= {"youtube": "segment_id", "mids": "label"}
        clips = ((line, self._event(line, fields)) for line, fields in rows)
        yield from merge(((clip.key, line, clip) for line, clip in clips), self.uri, self.stats, holds_all=True)

    def _event(self, line: int, fields: Mapping[str, Any]) -> Clip:
        """Return the clip of a row of strong labels, with the one event of the row."""
        self.stats.read["rows"] += 1
        row = strong_labels.parse(self.uri, line, fields)
        start_s = row.clip_ms / 1000
        segment = audioset.Segment(row.ytid, start_s, start_s + CLIP_S, (row.mid,))
        return self.clip(segment, events=row.events(self.names))

    def vggsound(self, records: Iterable[Record]) -> Iterator[Clip]:
        """Yield the clips of VGGSound's tables: `ytid,start,label,split`, or `<ytid>_<start>.mp4,label` of test clips."""
        for line, cells in records:
            self.stats.read["rows"] += 1
            test_name = TEST_NAME.fullmatch(cells[0])
            if len(cells) == 4 and ID.fullmatch(cells[0]) and cells[1].isdigit():
                ytid, start, label, split = cells[0], int(cells[1]), cells[2], cells[3]
            elif len(cells) == 2 and test_name:
                ytid, start, label, split = test_name[1], int(test_name[2]), cells[1], "test"
            else:
                raise ListingError(
                    self.uri, line, f"want ytid,start,label,split or <ytid>_<start>.mp4,label; got {cells}"
                )
            segment = audioset.Segment(ytid, float(start), start + CLIP_S, ())
            label = label.replace("_", ",")  # `bird chirping_ tweeting` in tables that may hold no comma
            yield self.clip(segment, tags=(label,), fold=split.strip(), source_id=f"{ytid}_{start:06d}")

    def _segment(self, line: int, ytid: str, start: str, end: str, mids: str) -> audioset.Segment:
        start_s, end_s = number(self.uri, line, "start_seconds", start), number(self.uri, line, "end_seconds", end)
        return audioset.Segment(ytid.strip(), start_s, end_s, audioset.split_mids(mids))

    def _row(self, line: int, cells: Mapping[str, Any], labels: Mapping[str, tuple[str, ...]]) -> Clip:
        self.stats.read["rows"] += 1
        ytid = text_of(cells["youtube"])
        if not ytid:
            raise ListingError(self.uri, line, "has no YouTube id")
        start_s, end_s, duration_s = (number(self.uri, line, n, cells.get(n)) for n in ("start", "end", "duration"))
        mids = audioset.split_mids(text_of(cells.get("mids"))) or labels.get(ytid, ())
        fields: Fields = {
            "captions": tuple(texts(cells.get("captions"), CAPTION_SEPARATOR)),
            "fold": text_of(cells.get("fold")),
        }
        if tags := texts(cells.get("labels"), LABEL_SEPARATOR):
            fields["tags"] = tuple(tag.replace("_", " ") for tag in tags)
        end_s = end_s or start_s + (duration_s or CLIP_S)
        return self.clip(audioset.Segment(ytid, start_s, end_s, mids), **fields)

    def _class_names(self, required: bool) -> dict[str, str]:
        uri = storage.join(self.folder, audioset.LABELS_FILE)
        if storage.exists(uri):
            return audioset.read_labels(storage.read_text(uri))
        if required:
            problem = f"its mids need {audioset.LABELS_FILE} beside it; copy the official file there"
            raise ListingError(self.uri, 0, problem)
        return {}

    def _beside(self, ending: str) -> str:
        return storage.join(self.folder, self.name.split(".")[0] + ending)

    def _strong_labels(self) -> dict[tuple[str, int], list[Event]]:
        """Return the events of clips, by YouTube id and start in ms, where a table of them lies beside this one."""
        uri = next(filter(storage.exists, strong_labels.beside(self.uri)), "")
        return strong_labels.read(uri, strong_labels.read_names(self.folder) | self.names) if uri else {}

    def _captions(self) -> dict[tuple[str, float], list[str]]:
        uri = self._beside(CAPTIONS_OF_SEGMENTS)
        found: dict[tuple[str, float], list[str]] = defaultdict(list)
        if storage.exists(uri):
            with delimited(uri, ListingStats()) as table:
                header = [columns.normalise(cell) for cell in next(table.records, Record(0, [])).cells]
                if missing := {"youtube_id", "start_time", "caption"} - set(header):
                    raise ListingError(uri, 1, f"has no column {', '.join(sorted(missing))}")
                for line, cells in table.records:
                    row = dict(zip(header, cells, strict=False))
                    start_s = number(uri, line, "start_time", row.get("start_time"))
                    found[row["youtube_id"], start_s].append(row.get("caption", ""))
        return found

    def _labels(self, ytids: set[str]) -> dict[str, tuple[str, ...]]:
        """Return AudioSet's mids by YouTube id, where its segments and labels lie in the folder."""
        self.names = self._class_names(required=False)
        tables = [name for name in storage.list_names(self.folder) if "_segments.csv" in name] if self.names else []
        found: dict[str, tuple[str, ...]] = {}
        for name in tables:
            with delimited(storage.join(self.folder, name), ListingStats()) as table:
                rows = (record.cells for record in table.records if len(record.cells) == len(SEGMENT_COLUMNS))
                found |= {cells[0]: audioset.split_mids(cells[3]) for cells in rows if cells[0] in ytids}
        return found
