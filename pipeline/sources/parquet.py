"""Parquet tables, as Hugging Face writes them -> clips: with audio bytes inside, or with a column that names files.

Listing reads every column but the audio. Neighbouring rows of one clip (the same id and start, or the same id and file name)
become one clip with several captions. A row group that is damaged becomes a clip with a fault.
"""

import json
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.sources import columns
from pipeline.sources.clip import Clip
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.packed_clip import damaged, packed_clip, times
from pipeline.sources.rows import Fields
from pipeline.sources.tables import Options, Row, RowReader, merge, text_of

AUDIO_COLUMNS = ("audio", "flac", "wav", "mp3", "bytes")
ID_COLUMNS = ("video_id", "youtube_id", "ytid", "key", "id", "file", "filename", "path")


def list_parquet(uri: str, stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of a Parquet file, and one with a fault for a damaged row group or a damaged file.

    Raises:
        ValueError: when the file has neither audio bytes nor a column of files.
        OSError: when the file is absent or the store does not answer.
    """
    try:
        file = storage.open_parquet(uri)
    except (FileNotFoundError, storage.StoreFault):
        raise
    except (pa.ArrowException, OSError):
        storage.read_start(uri, 1)  # raises where it is the disk that fails, not the bytes
        stats.read["damaged files"] += 1
        yield damaged(uri, "", "unreadable: no Parquet file, or its footer is damaged")
        return
    with file:
        column = _audio_column(file.schema_arrow)
        if column:
            yield from _packed(uri, file, column, stats, options)
        else:
            yield from _named(uri, file, stats, options)


def read_row(uri: str, row: int) -> bytes | None:
    """Return the audio bytes of one row of a Parquet file, or None where the row has none."""
    with _row_group_lock:
        group, first_row = _row_group(uri, row)
        audio_of_row = _audio_of_group(uri, group)[row - first_row]
    value = audio_of_row.as_py()
    return value.get("bytes") if isinstance(value, dict) else value


def _packed(uri: str, file: pq.ParquetFile, column: str, stats: ListingStats, options: Options) -> Iterator[Clip]:
    names = [name for name in file.schema_arrow.names if name != column]
    _note_columns(uri, names, column, stats, options)
    names += [f"{column}.path"] if pa.types.is_struct(file.schema_arrow.field(column).type) else []

    def rows() -> Iterator[tuple[Hashable, int, Clip]]:
        for row, fields in _rows(uri, file, names, stats):
            if isinstance(fields, Clip):
                yield fields.key, row, fields
                continue
            stats.read["rows"] += 1
            path = (fields.pop(column, None) or {}).get("path") or ""
            clip = packed_clip(uri, _row_id(uri, row, fields, path), fields, options, offset=row)
            yield _identity(row, clip.key, columns.renamed(fields, options.columns), path), row, clip

    yield from merge(rows(), uri, stats, options.holds_all)


def _named(uri: str, file: pq.ParquetFile, stats: ListingStats, options: Options) -> Iterator[Clip]:
    """Yield the clips of a table that names files; rows count from 1, as lines do."""
    header = [columns.normalise(name) for name in file.schema_arrow.names]
    if "file" not in columns.choose(uri, header, options.columns):
        remedy = f"want one of {list(AUDIO_COLUMNS)}, or a column of files: --columns {columns.COLUMNS_HINT}"
        raise ValueError(f"no column of audio bytes: columns are {file.schema_arrow.names}, {remedy}")
    faults: list[Clip] = []

    def lines() -> Iterator[Row]:
        for row, fields in _rows(uri, file, file.schema_arrow.names, stats):
            if isinstance(fields, Clip):
                faults.append(fields)
            else:
                yield row + 1, columns.lowered(fields)

    yield from RowReader(uri, stats, options).clips(lines())
    yield from faults


def _rows(uri: str, file: pq.ParquetFile, names: list[str], stats: ListingStats) -> Iterator[tuple[int, Fields | Clip]]:
    """Yield (row, fields), or a clip with a fault for a damaged row group."""
    class_names = _class_names(file.schema_arrow)
    first_row = 0
    for group in range(file.num_row_groups):
        try:
            rows = file.read_row_group(group, columns=names).to_pylist()
        except storage.StoreFault:
            raise
        except (pa.ArrowException, OSError):
            storage.read_start(uri, 1)
            stats.read["damaged row groups"] += 1
            yield first_row, damaged(uri, f"row group {group} of ", "unreadable: the row group is damaged")
            rows = []
        for row, fields in enumerate(rows, start=first_row):
            for column, classes in class_names.items():
                fields[column] = _labels(fields.get(column), classes)
            yield row, fields
        first_row += file.metadata.row_group(group).num_rows


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return {column: names of its classes} of the ClassLabel columns that Hugging Face's metadata of the schema lists."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        while isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = inner["names"]
    return found


def _labels(value: Any, names: list[str]) -> list[str]:
    """Return the names of class numbers; -1 stands for none."""
    numbers = value if isinstance(value, list) else [value]
    return [names[n] for n in numbers if isinstance(n, int) and 0 <= n < len(names)]


def _note_columns(uri: str, names: Iterable[str], audio: str, stats: ListingStats, options: Options) -> None:
    plain = {columns.normalise(name): name for name in names}
    chosen = columns.choose(uri, plain, options.columns)
    stats.columns |= {"file": audio} | {role: name for role, name in chosen.items() if role != "file"}
    used = {*chosen.values(), *ID_COLUMNS}
    stats.unused_columns |= {name: None for key, name in plain.items() if key not in used}


def _identity(row: int, key: str, fields: Fields, path: str) -> tuple[object, ...]:
    """Return a value that only the rows of one clip share; without an id, or without start and path, only this row."""
    has_id = any(text_of(fields.get(column)) for column in ID_COLUMNS)
    start_s = times(fields)[0]
    return (key, start_s, path) if has_id and (start_s is not None or path) else (row,)


def _row_id(uri: str, row: int, fields: Fields, path: str) -> str:
    plain = columns.lowered(fields)
    row_id = next(filter(None, (text_of(plain.get(column)) for column in ID_COLUMNS)), "")
    return row_id or path or f"{uri.rpartition('/')[2].removesuffix('.parquet')}_{row}"


def _audio_column(schema: pa.Schema) -> str:
    """Return the column of audio bytes, '' where there is none."""
    for name in AUDIO_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            members = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
            if "bytes" in members or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    return ""


_row_group_lock = Lock()  # the threads that read the clips of a shard would each load the row group


@lru_cache(maxsize=8)
def _open_file(uri: str) -> pq.ParquetFile:
    """Open a file, and keep some open: to read the metadata again for every clip is slow."""
    return storage.open_parquet(uri)


def _row_group(uri: str, row: int) -> tuple[int, int]:
    """Return the row group that holds a row, and that group's first row."""
    metadata, first = _open_file(uri).metadata, 0
    for group in range(metadata.num_row_groups):
        if row < first + metadata.row_group(group).num_rows:
            return group, first
        first += metadata.row_group(group).num_rows
    raise OSError(f"{uri} has {first} rows, no row {row}")


@lru_cache(maxsize=2)  # clips of one shard lie in one or two row groups
def _audio_of_group(uri: str, group: int) -> pa.ChunkedArray:
    file = _open_file(uri)
    column = _audio_column(file.schema_arrow)
    return file.read_row_group(group, columns=[column])[column]
