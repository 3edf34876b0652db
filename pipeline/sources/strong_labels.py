"""AudioSet's strong labels: tables of events, each with its clip, its times and its label; read and written.

    segment_id             start_time_seconds  end_time_seconds  label
    <ytid>_<start in ms>   0.12                2.5               /m/06mb1

Times are seconds from the start of the clip. Described at research.google.com/audioset/download_strong.html. Such a table is
a source of its own. `<name>_strong.tsv` beside a segments file `<name>.csv` gives its clips their events. So does an
official table: `audioset_eval_strong.tsv` beside `eval_segments.csv`, `audioset_train_strong.tsv` beside the others. The
names of labels are in `mid_to_display_name.tsv`; `class_labels_indices.csv` lacks some of the strong ones.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline import storage
from pipeline.sources import columns
from pipeline.sources.clip import Event
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.rows import ListingError, Record, delimited
from pipeline.sources.tables import number, text_of

OF_SEGMENTS = "_strong.tsv"
OFFICIAL = {
    "eval_segments": "audioset_eval_strong.tsv",
    "balanced_train_segments": "audioset_train_strong.tsv",
    "unbalanced_train_segments": "audioset_train_strong.tsv",
}  # by the name of the segments file
NAMES_FILE = "mid_to_display_name.tsv"
COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")


class StrongLabel(NamedTuple):
    """One row: an event of a clip."""

    ytid: str
    clip_ms: int  # where the clip begins in its recording
    mid: str
    start_s: float  # from the start of the clip
    end_s: float

    def events(self, names: Mapping[str, str]) -> tuple[Event, ...]:
        """Return the event under its display name; nothing where it has none."""
        return (Event(names[self.mid], self.start_s, self.end_s),) if self.mid in names else ()


def parse(uri: str, line: int, fields: Mapping[str, Any]) -> StrongLabel:
    """Return a row. Raises ListingError for an id without a start, and for times that cannot be."""
    ytid, sign, clip_ms = text_of(fields["segment_id"]).rpartition("_")
    if not sign or not clip_ms.isdigit():
        raise ListingError(uri, line, f"segment_id is {fields['segment_id']!r}, want <ytid>_<start in ms>")
    start_s, end_s = times(uri, line, {name: fields[name] for name in COLUMNS[1:3]})
    return StrongLabel(ytid, int(clip_ms), text_of(fields["label"]), start_s, end_s)


def times(uri: str, line: int, cells: Mapping[str, Any]) -> tuple[float, float]:
    """Return start and end of an event, seconds, of {column: cell} of both. Raises ListingError for what cannot be."""
    for name, cell in cells.items():
        if text_of(cell).lower() in ("", "nan"):
            raise ListingError(uri, line, f"has no {name}; give the seconds from the start of the clip")
    start_s, end_s = (number(uri, line, name, cell) for name, cell in cells.items())
    if not 0 <= start_s <= end_s:
        remedy = "both are seconds from the start of the clip"
        raise ListingError(uri, line, f"an event from {start_s} s to {end_s} s cannot be; {remedy}")
    return start_s, end_s


def beside(segments_uri: str) -> list[str]:
    """Return the tables that may give the clips of a segments file their events: the first that exists does."""
    folder, _, name = segments_uri.rpartition("/")
    name = name.split(".")[0]
    return [storage.join(folder, file) for file in (name + OF_SEGMENTS, OFFICIAL.get(name, "")) if file]


def read_names(folder: str) -> dict[str, str]:
    """Return {mid: display name} of the official list in a folder; {} where there is none."""
    uri = storage.join(folder, NAMES_FILE)
    pairs = (
        (line.split("\t", 1) for line in storage.read_text(uri).splitlines() if "\t" in line)
        if storage.exists(uri)
        else ()
    )
    return {mid.strip(): name.strip() for mid, name in pairs}


def read(uri: str, names: Mapping[str, str]) -> dict[tuple[str, int], list[Event]]:
    """Return {(YouTube id, start in ms): events} of a table; `names` are display names by mid.

    Raises:
        ListingError: for another table, and as `parse` does.
    """
    found: dict[tuple[str, int], list[Event]] = {}
    with delimited(uri, ListingStats()) as table:
        header = [columns.normalise(cell) for cell in next(table.records, Record(0, [])).cells]
        if missing := [name for name in COLUMNS if name not in header]:
            raise ListingError(uri, 1, f"has no column {', '.join(missing)}")
        for line, cells in table.records:
            row = parse(uri, line, dict(zip(header, cells, strict=False)))
            found.setdefault((row.ytid, row.clip_ms), []).extend(row.events(names))
    return found


def write(labels: Iterable[StrongLabel]) -> str:
    """Return the text of a table."""
    rows = (f"{row.ytid}_{row.clip_ms}\t{row.start_s:.3f}\t{row.end_s:.3f}\t{row.mid}\n" for row in labels)
    return "\t".join(COLUMNS) + "\n" + "".join(rows)
