"""Datasets -> the rows to index, in units that are written as one: a shard, or some clips of a table, a folder, tars."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from eval.embedding.cache import clip_ids
from pipeline import sources, storage
from pipeline.dataset import overlays, selection, shards
from pipeline.errors import InputError
from pipeline.sources.clip import AudioLocation, Clip
from pipeline.storage.read_ahead import read_ahead

READERS = 8  # units read at a time
META_READERS = 16  # small reads at a time
UNIT_CLIPS = 1_000  # of a source that has no shards


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip to index: what the table holds of it but its vector, see `index.schema`."""

    key: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    duration_s: float  # 0 where only decoding gives it
    source_id: str
    audio: str
    location: AudioLocation

    def id(self, data: str) -> str:
        """Return the id of the clip in an index: it depends on the dataset and the key only."""
        return hashlib.sha256(f"{data}\n{self.key}".encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Clips of a dataset that are written as one."""

    data: str
    name: str
    mark: str  # hash that changes with any row
    rows: tuple[Row, ...]


class Dataset(Protocol):
    """What is indexed."""

    uri: str
    captions: str
    """Overlay whose captions are indexed; empty takes the dataset's own."""

    def units(self) -> Iterator[Unit]:
        """Yield the units in a fixed order, without holding them, and without what takes a read for each clip."""

    def read(self, name: str) -> Unit:
        """Return a unit with all that is indexed of it."""


def open_dataset(uri: str, captions: str = "") -> Dataset:
    """Return a dataset of shards that `pipeline caption` wrote, or any other source of clips.

    Raises:
        InputError: when there is no clip, or no such overlay.
    """
    if not uri:
        raise InputError("--data", uri, "give the --out of `python -m pipeline caption`, or a table or folder of clips")
    folder = storage.resolve(uri)
    try:
        sizes = shards.sizes(folder)
    except FileNotFoundError:
        if captions:
            remedy = f"{uri} is no finished dataset of shards, and has no overlays; leave --captions out"
            raise InputError("--captions", captions, remedy) from None
        return SourceDataset(folder, sources.read_clips(uri, flag="--data"))
    selection.check_overlay(folder, captions, sizes, "--captions", "`pipeline recaption` adds one")
    return ShardDataset(folder, captions, list(sizes))


class ShardDataset:
    """A dataset of shards, finished; a unit is a shard."""

    def __init__(self, uri: str, captions: str, numbers: Sequence[int]) -> None:
        self.uri, self.captions, self.numbers = uri, captions, numbers

    def units(self) -> Iterator[Unit]:
        """Yield the shards with a written clip; nothing but their ledgers is read."""
        yield from (unit for unit in read_ahead(self._unit, self.numbers, READERS) if unit.rows)

    def read(self, name: str) -> Unit:
        """Return a shard with the source id of each clip, which stands in its JSON."""
        number, tar = shards.number_of(name), storage.join(self.uri, name)
        unit = self._unit(number)
        source_ids = read_ahead(partial(_source_id, tar), overlays.read_clips(self.uri, number), META_READERS)
        rows = (dataclasses.replace(row, source_id=own) for row, own in zip(unit.rows, source_ids, strict=True))
        return dataclasses.replace(unit, rows=tuple(rows))

    def _unit(self, number: int) -> Unit:
        own = overlays.read_clips(self.uri, number)
        texts = overlays.read_part(self.uri, self.captions, number) if self.captions else {}
        name = shards.tar_name(number)
        uri = storage.join(self.uri, name)
        rows = tuple(
            Row(
                key=row["key"],
                captions=tuple(texts.get(row["key"], {"text": []})["text"] if self.captions else row["text"]),
                tags=tuple(row["tags"]),
                duration_s=row["duration_s"],
                source_id="",
                audio=row["sha256"],
                location=AudioLocation(uri, row["flac_offset"], row["flac_size"]),
            )
            for row in own
        )
        return Unit(data=self.uri, name=name, mark=_mark(rows), rows=rows)


class SourceDataset:
    """The clips of a table, a folder, tars or Parquet files; a unit is a thousand of them, by their keys."""

    captions = ""

    def __init__(self, uri: str, clips: Sequence[Clip]) -> None:
        self.uri, self.clips = uri, sorted(clips, key=lambda clip: clip.key)

    def units(self) -> Iterator[Unit]:
        """Yield the clips, a thousand to a unit."""
        return map(self._unit, range(-(-len(self.clips) // UNIT_CLIPS)))

    def read(self, name: str) -> Unit:
        """Return a unit; nothing more is to be read."""
        return self._unit(int(name))

    def _unit(self, number: int) -> Unit:
        clips = self.clips[number * UNIT_CLIPS : (number + 1) * UNIT_CLIPS]
        rows = tuple(
            Row(
                key=clip.key,
                captions=clip.captions,
                tags=clip.tags,
                duration_s=0.0,
                source_id=clip.source_id,
                audio=audio,
                location=location,
            )
            for clip, audio, location in zip(clips, clip_ids(clips), _locations(clips), strict=True)
        )
        return Unit(data=self.uri, name=f"{number:05d}", mark=_mark(rows), rows=rows)


def _locations(clips: Sequence[Clip]) -> list[AudioLocation]:
    """Return where the audio of clips lies; of whole files on disk with their sizes, by which they can be read in parts."""
    whole = [clip for clip in clips if clip.offset < 0 and clip.location.whole and "://" not in clip.uri]
    found = {
        clip.key: AudioLocation(clip.uri, 0, size, clip.fault)
        for clip, (size, _) in zip(whole, storage.stamps([clip.uri for clip in whole]), strict=True)
        if size
    }
    return [found.get(clip.key, clip.location) for clip in clips]


def _mark(rows: Sequence[Row]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:32]


def _source_id(tar: str, row: shards.ClipRow) -> str:
    meta: shards.SampleMeta = json.loads(storage.read(tar, row["json_offset"], row["json_size"]))
    return meta.get("source_id", "")
