"""Clips packed many to a file: WebDataset tars (LAION, img2dataset, our own) and Hugging Face style Parquet.

Listing keeps only where each clip's audio lies. What is wrong with a file becomes a clip with a fault: a row of the ledger,
and never a clip less.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import audioset, storage
from pipeline.clip import SUFFIXES, Clip, key_of, origin_of

AUDIO_COLUMNS = ("audio", "flac", "wav", "mp3", "bytes")
ID_COLUMNS = ("video_id", "youtube_id", "ytid", "key", "id", "file", "filename", "path")
YOUTUBE_COLUMNS = ("video_id", "youtube_id", "ytid")
LABEL_COLUMNS = ("human_labels", "tag", "tags", "labels", "label", "category")
CAPTION_COLUMNS = ("text", "captions", "caption")
MID_STARTS = ("/m/", "/g/", "/t/")


def list_tar(uri: str) -> list[Clip]:
    """List the samples of one uncompressed tar: files that share the name up to the first dot, wherever they stand in it."""
    samples: dict[str, dict[str, Any]] = {}
    fault = ""
    with storage.open_stream(uri) as stream:
        forward = _Forward(stream)
        try:
            with tarfile.open(fileobj=forward, mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    if member.isfile():
                        _note(samples, tar, member)
            if any(forward.last) or not forward.last:
                fault = "truncated: the tar breaks off or is damaged"
        except tarfile.TarError as error:
            fault = f"truncated: {error}" if samples else f"unreadable: {error}"
    clips = [_tar_clip(uri, stem, parts) for stem, parts in samples.items()]
    if fault:
        clips.append(_no_file(uri, "end of ", fault))
    return clips


def list_parquet(uri: str) -> Iterator[Clip]:
    """Yield a clip for each row of a Parquet file, and one with a fault for what is damaged: a row group, or all of it.

    Raises:
        ValueError: when the file has no column of audio bytes.
        OSError: when it is not there or the store does not answer.
    """
    try:
        file = storage.open_parquet(uri)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        storage.read(uri, 0, 1)  # raises where it is the store that fails, not the bytes
        yield _no_file(uri, "", "unreadable: no Parquet file, or its footer is damaged")
        return
    with file:
        column = _audio_column(file.schema_arrow)
        wanted = [name for name in file.schema_arrow.names if name != column]
        wanted += [f"{column}.path"] if pa.types.is_struct(file.schema_arrow.field(column).type) else []
        first_row = 0
        for group in range(file.num_row_groups):
            try:
                rows = file.read_row_group(group, columns=wanted).to_pylist()
            except (pa.ArrowException, OSError):
                storage.read(uri, 0, 1)
                yield _no_file(uri, f"row group {group} of ", "unreadable: the row group is damaged")
                rows = []
            for row, fields in enumerate(rows, start=first_row):
                path = (fields.pop(column, None) or {}).get("path") or ""
                yield _described(uri, _row_id(uri, row, fields, path), fields, offset=row)
            first_row += file.metadata.row_group(group).num_rows


def read_row(uri: str, row: int) -> bytes | None:
    """Return the audio bytes of one row of a Parquet file, or None where the row has none."""
    with _one_reads:
        group, first_row = _row_group(uri, row)
        audio_of_row = _audio_of_group(uri, group)[row - first_row]
    value = audio_of_row.as_py()
    return value.get("bytes") if isinstance(value, dict) else value


def _no_file(uri: str, part: str, fault: str) -> Clip:
    """Make a row of what is wrong with a packed file."""
    name = uri.rpartition("/")[2]
    return Clip(key=key_of(f"{name}_{part}".strip(" _")), uri=uri, source_id=f"{part}{name}", fault=fault)


class _Forward:
    """A stream that tarfile may skip forward in; remembers the last block it gave, to tell how the tar ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.place, self.last = stream, 0, b""

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, whence: int = 0) -> int:
        assert whence == 0 and place >= self.place, (place, self.place)
        while self.place < place and (skipped := self.stream.read(min(place - self.place, 2**20))):
            self.place += len(skipped)
        return self.place

    def read(self, size: int) -> bytes:
        self.last = self.stream.read(size)
        self.place += len(self.last)
        return self.last


def _note(samples: dict[str, dict[str, Any]], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Keep where a member's audio lies, or its text."""
    folder, _, name = member.name.rpartition("/")
    if name.startswith("."):  # what macOS puts beside a file
        return
    stem, _, suffix = name.partition(".")
    sample = f"{folder}/{stem}" if folder else stem
    if f".{suffix.lower()}" in SUFFIXES:
        samples.setdefault(sample, {}).setdefault("audio", (member.offset_data, member.size))
    elif suffix in ("json", "txt"):
        file = tar.extractfile(member)
        assert file is not None, member.name
        samples.setdefault(sample, {})[suffix] = file.read()


def _tar_clip(uri: str, stem: str, parts: dict[str, Any]) -> Clip:
    fault = "" if "audio" in parts else f"missing: the tar has no audio for {stem}"
    fields: dict[str, Any] = {}
    try:
        fields = json.loads(parts.get("json", "{}"))
        if not isinstance(fields, dict):
            fields, fault = {}, fault or f"unreadable: {stem}.json is no JSON object"
        if "txt" in parts:
            fields.setdefault("text", parts["txt"].decode())
    except ValueError as error:
        fault = fault or f"unreadable: {stem}.json or .txt: {error}"
    offset, size = parts.get("audio", (-1, -1))
    return _described(uri, stem, fields, offset=offset, size=size, fault=fault)


def _described(uri: str, name: str, fields: dict[str, Any], **place: Any) -> Clip:
    """Make a clip of what a row or a sample's JSON tells."""
    labels = _first(fields, LABEL_COLUMNS)
    mids = [label for label in _strings(fields.get("mids") or fields.get("labels")) if label.startswith(MID_STARTS)]
    youtube = next((str(fields[column]) for column in YOUTUBE_COLUMNS if fields.get(column)), "")
    told = " ".join(str(fields[c]) for c in ("origin", "source_id", "url", "href", "source") if fields.get(c))
    return Clip(
        key=f"Y{audioset.slug(youtube)}" if youtube else key_of(name),
        uri=uri,
        source_id=str(fields.get("source_id") or youtube or name),
        origin=f"youtube:{youtube}" if youtube else origin_of(told),
        start_s=float(fields.get("start_s") or 0),
        end_s=float(fields.get("end_s") or 0),
        tags=tuple(label.replace("_", " ") for label in labels if not label.startswith(MID_STARTS)),
        mids=tuple(mids),
        captions=tuple(_first(fields, CAPTION_COLUMNS)),
        fold=str(fields.get("fold") or fields.get("split") or ""),
        **place,
    )


def _first(fields: dict[str, Any], columns: Iterable[str]) -> list[str]:
    return next((found for column in columns if (found := _strings(fields.get(column)))), [])


def _strings(value: Any) -> list[str]:
    """Return a text or a list of texts as a list; numbers are no labels."""
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


def _row_id(uri: str, row: int, fields: dict[str, Any], path: str) -> str:
    named = next((str(fields[column]) for column in ID_COLUMNS if fields.get(column)), "")
    return named or path or f"{uri.rpartition('/')[2].removesuffix('.parquet')}_{row}"


def _audio_column(schema: pa.Schema) -> str:
    for name in AUDIO_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            holds = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
            if "bytes" in holds or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    raise ValueError(f"no column of audio bytes: columns are {schema.names}, want one of {list(AUDIO_COLUMNS)}")


_one_reads = Lock()  # the clips of a shard are read in threads; without it each would load the row group for itself


@lru_cache(maxsize=8)
def _kept_open(uri: str) -> pq.ParquetFile:
    """Keep some files open: reading their metadata again for every clip is slow."""
    return storage.open_parquet(uri)


def _row_group(uri: str, row: int) -> tuple[int, int]:
    """Return the row group that holds a row, and that group's first row."""
    metadata, first = _kept_open(uri).metadata, 0
    for group in range(metadata.num_row_groups):
        if row < first + metadata.row_group(group).num_rows:
            return group, first
        first += metadata.row_group(group).num_rows
    raise OSError(f"{uri} has {first} rows, no row {row}")


@lru_cache(maxsize=2)  # clips of one shard lie in one or two row groups
def _audio_of_group(uri: str, group: int) -> pa.ChunkedArray:
    file = _kept_open(uri)
    column = _audio_column(file.schema_arrow)
    return file.read_row_group(group, columns=[column])[column]
