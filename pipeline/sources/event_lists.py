"""Strong labels of named files: a table of the events of many files, and folders with a list of events for each file.

    filename  onset  offset  event_label      DESED's tables. A row with a name alone is a clip without events. Durations
                                              lie beside them: <name>_durations.tsv or durations.tsv (filename, duration)
    <onset>  <offset>  <label>                URBAN-SED: annotations/<split>/<name>.txt of audio/<split>/<name>.wav
    <onset>  <offset>  <label>  <share>       MAESTRO Real: development_annotation/soft_labels_<scene>/<name>.txt of
                                              development_audio/<scene>/<name>.wav; <share> is that of the annotators

Cells are separated by tabs, times are seconds from the start of the file. Formats: the authors' own descriptions at
zenodo.org, records 3588172 and 6026841 (DESED), 1324404 (URBAN-SED), 7244360 (MAESTRO Real).
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline import storage
from pipeline.sources import audioset, columns
from pipeline.sources.clip import Clip, Event, key_of, stem, suffix_of
from pipeline.sources.listing_stats import ListingStats, end_of
from pipeline.sources.rows import ListingError, Record, delimited
from pipeline.sources.strong_labels import times
from pipeline.sources.tables import Options, Row, RowReader, merge, number, text_of

EVENT_COLUMNS = {"onset", "offset"}
NO_PART = dict.fromkeys(("start", "end", "duration"), "")  # roles that would cut a clip out of its file
NAMED_BY_YOUTUBE = re.compile(r"Y?([\w-]{11})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")  # an id, and where in the recording
ROUNDING_S = 0.1  # of the durations
MIN_SHARE = 0.5  # of the annotators, from which a label is one: the hard labels of DCASE 2023, task 4 B


class ListFolders(NamedTuple):
    """Where a dataset has its lists, and the audio of each."""

    lists: str
    audio: str
    prefix: str = ""  # of the folders of lists, which those of audio lack


LIST_FOLDERS = (
    ListFolders("annotations", "audio"),
    ListFolders("development_annotation", "development_audio", "soft_labels_"),
)


def list_events(uri: str, rows: Iterable[Row], stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of a table of events; all rows of a file are one clip.

    Raises:
        ListingError: naming the line, for a row that is half empty and for times that cannot be.
    """
    options = dataclasses.replace(options, columns={**options.columns, **NO_PART})
    reader, ends = RowReader(uri, stats, options), _durations(uri)

    def clips() -> Iterator[tuple[str, int, Clip]]:
        for line, fields in rows:
            clip = reader.clip(line, fields)
            onset, offset = (text_of(fields[name]) for name in ("onset", "offset"))
            if clip.tags or onset or offset:
                clip = _with_event(uri, line, clip, onset, offset, ends.get(clip.source_id))
            yield clip.uri, line, _named_by_youtube(clip)

    yield from merge(clips(), uri, stats, holds_all=True)
    stats.columns |= {"start": "onset", "end": "offset"}
    stats.unused_columns = {name: None for name in stats.unused_columns if name not in EVENT_COLUMNS}


def _with_event(uri: str, line: int, clip: Clip, onset: str, offset: str, end_s: float | None) -> Clip:
    if not (len(clip.tags) == 1 and onset and offset):
        found = f"onset {onset!r}, offset {offset!r} and label {'|'.join(clip.tags)!r}"
        remedy = "an event needs one of each, and a clip without events none"
        raise ListingError(uri, line, f"{clip.source_id!r} has {found}; {remedy}")
    start_s, stop_s = times(uri, line, {"onset": onset, "offset": offset})
    if end_s is not None and start_s >= end_s + ROUNDING_S:
        remedy = "correct the row or the duration"
        raise ListingError(uri, line, f"onset is {start_s} s in a clip of {end_s} s ({clip.source_id!r}); {remedy}")
    return dataclasses.replace(clip, events=(Event(clip.tags[0], start_s, stop_s),))


def _named_by_youtube(clip: Clip) -> Clip:
    """Return a clip with AudioSet's key and id where its file is named by an id and times."""
    if not (named := NAMED_BY_YOUTUBE.fullmatch(stem(clip.source_id.rpartition("/")[2]))):
        return clip
    ytid, start_s, end_s = named[1], float(named[2]), float(named[3])
    key = audioset.key(ytid, start_s, end_s)
    return dataclasses.replace(clip, key=key, recording_id=f"youtube:{ytid}", start_s=start_s, end_s=end_s)


def _durations(uri: str) -> dict[str, float]:
    """Return {file: seconds} of the durations beside a table; {} where there are none."""
    folder, _, name = uri.rpartition("/")
    names = (f"{name.removesuffix('.gz').rpartition('.')[0]}_durations.tsv", "durations.tsv")
    beside = next((found for name in names if storage.exists(found := storage.join(folder, name))), "")
    if not beside:
        return {}
    with delimited(beside, ListingStats()) as table:
        header = [columns.normalise(cell) for cell in next(table.records, Record(0, [])).cells]
        if missing := {"filename", "duration"} - set(header):
            raise ListingError(beside, 1, f"has no column {', '.join(sorted(missing))}; its columns are {header}")
        rows = ((line, dict(zip(header, cells, strict=False))) for line, cells in table.records)
        return {row["filename"]: number(beside, line, "duration", row.get("duration")) for line, row in rows}


def find_folders(uri: str, names: Iterable[str]) -> ListFolders | None:
    """Return which folders inside a folder hold lists and audio; None where it is no such dataset."""
    known = set(names)
    candidates = (each for each in LIST_FOLDERS if {each.lists, each.audio} <= known)
    return next((each for each in candidates if next(_lists(uri, each), None)), None)


def list_uris(uri: str) -> list[str]:
    """Return the lists of a dataset."""
    folders = find_folders(uri, storage.list_names(uri))
    return [storage.join(uri, folders.lists, *path) for path in _lists(uri, folders)] if folders else []


def list_folders(uri: str, stats: ListingStats) -> Iterator[Clip]:
    """Yield the clip of each list in the folders of a dataset, with the folder's name as its fold where these are splits.

    Raises:
        ListingError: naming file and line, for a row that is none.
    """
    folders = find_folders(uri, storage.list_names(uri))
    assert folders
    inside, audio = "", {}
    for folder, name in _lists(uri, folders):
        place = storage.join(uri, folders.audio, folder.removeprefix(folders.prefix))
        if folder != inside:
            inside, audio = folder, {stem(file): file for file in storage.names(place) if suffix_of(file)}
        stats.read["lists"] += 1
        events = tuple(_events(storage.join(uri, folders.lists, folder, name)))
        file = audio.get(
            name.removesuffix(".txt"), name.removesuffix(".txt") + ".wav"
        )  # an absent one is taken for .wav
        path = f"{folder.removeprefix(folders.prefix)}/{file}"
        tags = tuple(dict.fromkeys(event.label for event in events))
        fold = "" if folders.prefix else folder
        yield Clip(key=key_of(path), uri=storage.join(place, file), source_id=path, tags=tags, events=events, fold=fold)
    for folder in storage.list_names(storage.join(uri, folders.lists)):
        for name in storage.list_names(storage.join(uri, folders.lists, folder)):
            if not name.endswith(".txt"):
                stats.skip("files", end_of(name))


def _lists(uri: str, folders: ListFolders) -> Iterator[tuple[str, str]]:
    """Yield folder and name of each list, sorted."""
    for folder in storage.list_names(storage.join(uri, folders.lists)):
        names = storage.list_names(storage.join(uri, folders.lists, folder))
        yield from ((folder, name) for name in names if name.endswith(".txt"))


def _events(uri: str) -> Iterator[Event]:
    """Yield the events of a list."""
    with delimited(uri, ListingStats()) as table:
        for line, cells in table.records:
            if not 3 <= len(cells) <= 4 or not cells[2].strip():
                remedy = "want onset, offset and label, and the share of annotators where there is one, between tabs"
                raise ListingError(uri, line, f"is {cells}; {remedy}")
            start_s, end_s = times(uri, line, {"onset": cells[0], "offset": cells[1]})
            share = number(uri, line, "the share of annotators", cells[3]) if len(cells) == 4 else 1.0
            if not 0 <= share <= 1:
                raise ListingError(uri, line, f"the share of annotators is {share}; want 0 to 1")
            if share >= MIN_SHARE:
                yield Event(cells[2].strip().replace("_", " "), start_s, end_s)
