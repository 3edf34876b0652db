"""How each kind of part of a source is listed."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from pipeline import storage
from pipeline.sources import audioset, columns, manifests, official, published, youtube
from pipeline.sources.clip import Clip, key_of, origin_of, suffix_of
from pipeline.sources.parquet import list_parquet
from pipeline.sources.resolve import KINDS, Part
from pipeline.sources.rows import ListingError, Record, delimited, json_rows
from pipeline.sources.stats import ListingStats, end_of
from pipeline.sources.tables import NUMBERED, Options, Row, RowReader, distinct, note_columns
from pipeline.sources.tars import list_tar
from pipeline.sources.youtube import YoutubeTable

PACKED = ("tar", "parquet")  # listed here and now, in the thread of the caller
FOLDERS = ("folder", "classes")


def list_part(part: Part, options: Options) -> tuple[ListingStats, Iterable[Clip]]:
    """Return the counts of a part and its clips; the counts are whole when the clips are listed to their end."""
    stats = ListingStats()
    if options.holds_all and part.kind in PACKED:  # another file has the same names
        options = replace(options, prefix=part.name.rpartition(".")[0])
    clips = _clips(part, stats, options)
    if part.fold or part.label:
        clips = _placed(part, clips)
    return stats, list(clips) if part.kind in PACKED else clips


def kept(clips: Iterable[Clip], folds: Iterable[str], stats: ListingStats) -> Iterator[Clip]:
    """Yield the clips that are in one of the folds, all where there is none to choose; counts them and the others."""
    for clip in clips:
        if folds and clip.fold not in folds and not (clip.fault and not clip.fold):  # a damaged file has no fold
            stats.skipped["in another fold"] += 1
            continue
        stats.clips += 1
        stats.faults += bool(clip.fault)
        yield clip


def _placed(part: Part, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Give clips the fold and the label of their part, where they have none of their own."""
    tags = (part.label,) if part.label else ()
    for clip in clips:
        yield replace(clip, fold=clip.fold or part.fold, tags=clip.tags or tags)


def _clips(part: Part, stats: ListingStats, options: Options) -> Iterable[Clip]:
    if part.kind == "tar":
        return list_tar(part.uri, stats, options)
    if part.kind == "parquet":
        return list_parquet(part.uri, stats, options)
    if part.kind == "macs":
        return published.list_macs(part.uri, stats)
    if part.kind == "json":
        return _json(part.uri, stats, options)
    if part.kind == "folder":
        return _folder(part, stats)
    if part.kind == "classes":
        return official.list_classes(part.uri, stats)
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
            own = part.name + name
            yield Clip(key=key_of(own), uri=storage.join(part.uri, name), source_id=own, origin=origin_of(name))
        else:
            table = KINDS.get(end_of(name)) in ("table", "json")
            stats.skip("files", f"{name}, a table: give it as the source" if table else end_of(name))


def _file(part: Part, stats: ListingStats) -> Iterator[Clip]:
    """Yield the one clip that an audio file is."""
    stats.read["files"] += 1
    yield Clip(key=key_of(part.name), uri=part.uri, source_id=part.name, origin=origin_of(part.name))


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
    elif youtube.is_youtube(chosen):
        note_columns(stats, header, chosen)
        yield from YoutubeTable(uri, stats, options).rows(rows, chosen)
    else:
        reader = RowReader(uri, stats, options)
        reader.roles(dict.fromkeys(header))  # a table without a row, too, must name a file
        reader.place = published.place_of(uri, header)
        if chosen.get("mids") == "mids" and "labels" in chosen:
            reader.label_separator = ","  # FSD50K's tables
        labels = storage.join(uri.rpartition("/")[0], audioset.LABELS_FILE)
        if "mids" in chosen and "labels" not in chosen and storage.exists(labels):
            reader.names = audioset.read_labels(storage.read_text(labels))
        clips = reader.clips(rows)
        if any(map(NUMBERED.fullmatch, header)):  # Clotho's: a few thousand rows, whose names give equal keys
            clips = published.with_freesound_ids(uri, distinct(clips))
        yield from clips


def _json(uri: str, stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of JSON rows: Hugging Face's metadata, NeMo's and Lhotse's manifests, WavCaps' files."""
    rows = ((line, columns.lowered(fields)) for line, fields in json_rows(uri, stats))
    first = next(rows, None)
    if first is None:
        return
    lines: Iterable[Row] = chain([first], rows)
    if manifests.is_lhotse(first[1]):
        lines = ((line, manifests.from_lhotse(fields)) for line, fields in lines)
    if published.is_wavcaps(first[1]):
        yield from published.list_wavcaps(uri, lines, stats)
    elif youtube.is_youtube(columns.choose(uri, first[1], options.columns)):
        yield from _headed(uri, list(first[1]), lines, stats, options)
    else:
        yield from RowReader(uri, stats, options).clips(lines)


def _header(uri: str, record: Record) -> list[str]:
    header = [columns.normalise(cell) for cell in record.cells]
    twice = {
        name for name in header if header.count(name) > 1 and any(name in names for names in columns.ROLES.values())
    }
    if twice:
        raise ListingError(uri, record.line, f"column {sorted(twice)[0]!r} stands twice; rename or drop one")
    return header


def _fields(header: list[str], cells: list[str]) -> dict[str, Any]:
    """Return the cells of a row by column; those that a short row leaves out are empty."""
    return dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
