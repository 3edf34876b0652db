"""The formats of a source's parts: each part is listed by its kind."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from pipeline import storage
from pipeline.sources import audioset, columns, event_lists, lhotse, official_layouts, published_tables, youtube
from pipeline.sources.clip import Clip, find_recording_id, key_of, suffix_of
from pipeline.sources.listing_stats import ListingStats, end_of
from pipeline.sources.parquet import list_parquet
from pipeline.sources.parts import KINDS, Part
from pipeline.sources.rows import Fields, ListingError, Record, delimited, json_rows
from pipeline.sources.tables import NUMBERED, Options, Row, RowReader, distinct, note_columns
from pipeline.sources.tars import list_tar
from pipeline.sources.youtube import YoutubeTable

PACKED = ("tar", "parquet")  # listed at once, in the thread of the caller
FOLDERS = ("folder", "classes")


def list_part(part: Part, options: Options) -> tuple[ListingStats, Iterable[Clip]]:
    """Return the counts of a part and its clips; the counts are whole when the clips are listed to their end."""
    stats = ListingStats()
    if options.holds_all and part.kind in PACKED:  # another file has the same names
        options = replace(options, prefix=part.name.rpartition(".")[0])
    clips = _clips(part, stats, options)
    if part.fold or part.label:
        clips = _with_defaults(part, clips)
    return stats, list(clips) if part.kind in PACKED else clips


def kept(clips: Iterable[Clip], folds: Iterable[str], stats: ListingStats) -> Iterator[Clip]:
    """Yield the clips that are in one of the folds, or all where no fold is given; counts both groups."""
    for clip in clips:
        if folds and clip.fold not in folds and not (clip.fault and not clip.fold):  # a damaged file has no fold
            stats.skipped["in another fold"] += 1
            continue
        stats.clips += 1
        stats.faults += bool(clip.fault)
        yield clip


def _with_defaults(part: Part, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Give the fold and the label of a part to those of its clips that have none."""
    tags = (part.label,) if part.label else ()
    for clip in clips:
        yield replace(clip, fold=clip.fold or part.fold, tags=clip.tags or tags)


def _clips(part: Part, stats: ListingStats, options: Options) -> Iterable[Clip]:
    if part.kind == "tar":
        return list_tar(part.uri, stats, options)
    if part.kind == "parquet":
        return list_parquet(part.uri, stats, options)
    if part.kind == "macs":
        return published_tables.list_macs(part.uri, stats)
    if part.kind == "json":
        return _json(part.uri, stats, options)
    if part.kind == "folder":
        return _folder(part, stats)
    if part.kind == "classes":
        return official_layouts.list_classes(part.uri, stats)
    if part.kind == "lists":
        return event_lists.list_folders(part.uri, stats)
    if part.kind == "file":
        return _file(part, stats)
    return _table(part.uri, stats, options)


def _folder(part: Part, stats: ListingStats) -> Iterator[Clip]:
    """Yield a clip for each audio file in a folder, by name."""
    inside = set(part.folders)
    for name in storage.list_names(part.uri):
        if name in inside:
            continue
        if name.startswith("."):
            stats.skip("files", "hidden file")
        elif suffix_of(name):
            stats.read["files"] += 1
            path = part.name + name
            recording_id = find_recording_id(name)
            uri = storage.join(part.uri, name)
            yield Clip(key=key_of(path), uri=uri, source_id=path, recording_id=recording_id)
        else:
            table = KINDS.get(end_of(name)) in ("table", "json")
            stats.skip("files", f"{name}, a table: give it as the source" if table else end_of(name))


def _file(part: Part, stats: ListingStats) -> Iterator[Clip]:
    """Yield the one clip that an audio file is."""
    stats.read["files"] += 1
    recording_id = find_recording_id(part.name)
    yield Clip(key=key_of(part.name), uri=part.uri, source_id=part.name, recording_id=recording_id)


def _table(uri: str, stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of a delimited table, by its comments, its header or its first row."""
    with delimited(uri, stats) as table:
        first = next(table.records, None)
        if first is None:
            return
        records = chain([first], table.records)
        if audioset.is_segments("".join(table.comments)):
            yield from YoutubeTable(uri, stats, options).segments(records)
        elif youtube.is_vggsound(first.cells):
            yield from YoutubeTable(uri, stats, options).vggsound(records)
        else:
            header = _header(uri, first)
            rows = ((record.line, _fields(header, record.cells)) for record in table.records)
            yield from _headed(uri, header, rows, stats, options)


def _headed(uri: str, header: list[str], rows: Iterable[Row], stats: ListingStats, options: Options) -> Iterator[Clip]:
    chosen = columns.choose(uri, header, options.columns)
    if set(header) >= youtube.STRONG_COLUMNS:
        yield from YoutubeTable(uri, stats, options).strong(rows)
    elif set(header) >= event_lists.EVENT_COLUMNS and "start" not in options.columns:
        yield from event_lists.list_events(uri, rows, stats, options)
    elif youtube.is_youtube(chosen):
        note_columns(stats, header, chosen)
        yield from YoutubeTable(uri, stats, options).rows(rows, chosen)
    else:
        reader = RowReader(uri, stats, options)
        reader.roles(dict.fromkeys(header))  # raises also for a table without rows
        reader.locate = published_tables.find_locator(uri, header)
        if chosen.get("mids") == "mids" and "labels" in chosen:
            reader.label_separator = ","  # FSD50K's tables
        if chosen.get("labels") == "event_labels":
            reader.label_separator = ","  # DESED's weak labels
        labels = storage.join(uri.rpartition("/")[0], audioset.LABELS_FILE)
        if "mids" in chosen and "labels" not in chosen and storage.exists(labels):
            reader.names = audioset.read_labels(storage.read_text(labels))
        clips = reader.clips(rows)
        if any(map(NUMBERED.fullmatch, header)):  # Clotho's: a few thousand rows, whose names give equal keys
            clips = published_tables.with_freesound_ids(uri, distinct(clips))
        yield from clips


def _json(uri: str, stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of JSON rows: Hugging Face's metadata, NeMo's and Lhotse's manifests, WavCaps' files."""
    rows = ((line, columns.lowered(fields)) for line, fields in json_rows(uri, stats))
    first = next(rows, None)
    if first is None:
        return
    lines: Iterable[Row] = chain([first], rows)
    if lhotse.is_lhotse(first[1]):
        lines = ((line, lhotse.from_lhotse(fields)) for line, fields in lines)
    if published_tables.is_wavcaps(first[1]):
        yield from published_tables.list_wavcaps(uri, lines, stats, options.columns.get("captions", "caption"))
    elif youtube.is_youtube(columns.choose(uri, first[1], options.columns)):
        yield from _headed(uri, list(first[1]), lines, stats, options)
    else:
        yield from RowReader(uri, stats, options).clips(lines)


def _header(uri: str, record: Record) -> list[str]:
    header = [columns.normalise(cell) for cell in record.cells]
    known = {name for names in columns.ROLES.values() for name in names}
    if repeated := sorted(name for name in known if header.count(name) > 1):
        raise ListingError(uri, record.line, f"column {repeated[0]!r} stands twice; rename or drop one")
    return header


def _fields(header: list[str], cells: list[str]) -> Fields:
    """Return the cells of a row by column; the cells that a short row lacks are empty."""
    return dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
