"""Clips listed by a table beside an audio folder: AudioSet segment CSVs, or any CSV with a file column."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from pipeline import audioset, captioned, storage
from pipeline.audio_folder import AudioFolder
from pipeline.clip import Clip, key_of, origin_of, suffix_of, told_apart

COLUMNS = {  # role -> names looked for, first match wins
    "file": captioned.FILE_COLUMNS,
    "labels": ("labels", "label", "category", "class", "class_name"),
    "captions": ("captions", "caption", "text"),
    "fold": ("fold", "split"),
    "mids": ("mids",),
    "youtube": ("youtube_id", "ytid", "video_id"),
    "freesound": ("freesound_id", "fsID", "src_file", "sound_id"),
    "source": ("source_id", "url", "href", "download_link"),
}
LABEL_SEPARATOR = "|"  # display names contain commas and semicolons are taken by other tools
CAPTION_SEPARATOR = "||"
CAPTIONS_OF_SEGMENTS = "_captions.csv"


def list_table(uri: str) -> Iterator[Clip]:
    """Yield the clips of one CSV, row by row."""
    with storage.open_text(uri) as text:
        head = list(islice(text, audioset.SEGMENTS_HEAD))
        rows = chain(head, text)
        if audioset.is_segments("".join(head)):
            yield from _segment_clips(uri, rows)
        else:
            yield from _table_clips(uri, rows)


def read_beside(uri: str) -> list[str]:
    """Return what the listing of a CSV looks at beside it, there or not."""
    folder, _, name = uri.rpartition("/")
    tables = (audioset.LABELS_FILE, name.split(".")[0] + CAPTIONS_OF_SEGMENTS)
    return [*(storage.join(folder, each) for each in tables), *AudioFolder.places(folder, name)]


def list_folder(uri: str) -> Iterator[Clip]:
    """Yield a clip for each audio file in a folder, by name."""
    for name in storage.list_names(uri):
        if suffix_of(name):
            yield Clip(key=key_of(name), uri=storage.join(uri, name), source_id=name, origin=origin_of(name))


def _segment_clips(uri: str, rows: Iterator[str]) -> Iterator[Clip]:
    folder, _, name = uri.rpartition("/")
    labels_uri = storage.join(folder, audioset.LABELS_FILE)
    if not storage.exists(labels_uri):
        raise ValueError(f"its mids need {audioset.LABELS_FILE} beside it; copy the official file there")
    names = audioset.read_labels(storage.read(labels_uri).decode())
    captions = _captions(storage.join(folder, name.split(".")[0] + CAPTIONS_OF_SEGMENTS))
    files = AudioFolder(folder)
    for segment in audioset.read_segments(rows):
        unknown = [mid for mid in segment.mids if mid not in names]
        if unknown:
            raise ValueError(f"clip {segment.ytid} has mids absent from {audioset.LABELS_FILE}: {unknown}")
        yield Clip(
            key=audioset.key(segment.ytid, segment.start_s, segment.end_s),
            uri=files.find(segment),
            source_id=segment.ytid,
            origin=f"youtube:{segment.ytid}",
            start_s=segment.start_s,
            end_s=segment.end_s,
            tags=tuple(names[mid] for mid in segment.mids),
            mids=segment.mids,
            captions=tuple(captions.get((segment.ytid, segment.start_s), ())),
        )


def _captions(uri: str) -> dict[tuple[str, float], list[str]]:
    found: dict[tuple[str, float], list[str]] = defaultdict(list)
    if storage.exists(uri):
        with storage.open_text(uri) as text:
            for row in csv.DictReader(text):
                found[row["youtube_id"], float(row["start_time"])].append(row["caption"])
    return found


def _table_clips(uri: str, rows: Iterator[str]) -> Iterator[Clip]:
    reader = csv.DictReader(rows)
    header = list(reader.fieldnames or [])
    if captioned.is_audiocaps(header):
        yield from captioned.list_audiocaps(uri, reader)
        return
    columns = {role: next((name for name in names if name in header), None) for role, names in COLUMNS.items()}
    if columns["file"] is None:
        raise ValueError(f"no file column: header is {header}, want one of {list(COLUMNS['file'])}")
    files = AudioFolder(*uri.rpartition("/")[::2])
    listed: Iterable[dict[str, str]] = reader
    same: set[str] = set()
    if any(map(captioned.NUMBERED.fullmatch, header)):  # Clotho's: a few thousand rows, whose names give equal keys
        listed = list(reader)
        counts = Counter(key_of(row[columns["file"]] or "") for row in listed)
        same = {key for key, count in counts.items() if count > 1}
    separator = "," if columns["mids"] else LABEL_SEPARATOR  # FSD50K's tables
    for row in listed:
        cells = {role: (row[name] or "").strip() if name else "" for role, name in columns.items()}
        if not cells["file"]:
            raise ValueError(f"line {reader.line_num} names no file")
        yield Clip(
            key=told_apart(cells["file"]) if key_of(cells["file"]) in same else key_of(cells["file"]),
            uri=files.place(cells["file"]),
            source_id=cells["file"],
            origin=_origin(cells, columns),
            tags=tuple(_parts(cells["labels"].replace("_", " "), separator)),
            mids=tuple(_parts(cells["mids"], ",")),
            captions=tuple(_parts(cells["captions"], CAPTION_SEPARATOR) or captioned.numbered(row)),
            fold=cells["fold"],
        )


def _origin(cells: dict[str, str], columns: dict[str, str | None]) -> str:
    for archive in ("youtube", "freesound"):
        if cells[archive]:
            return f"{archive}:{cells[archive]}"
    if columns["file"] == "fname" and cells["file"].isdigit():  # FSD50K names its files by Freesound id
        return f"freesound:{cells['file']}"
    return origin_of(cells["source"]) or origin_of(cells["file"])


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator) if part.strip()]
