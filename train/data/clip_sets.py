"""Captioned clips to train on: of shards, of an index of external tars, or of a listing, all under one numbering.

The clips of a dataset are rows of an Arrow table, not Python objects. train/data/datasets.py opens them from a file
that all processes of a machine share.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import audio, sources
from pipeline.dataset.phrases import Phrase
from pipeline.dataset.shards import PHRASES
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.data import clip_file
from train.data.clip_file import ROWS
from train.data.columns import Absent, Column, Joined, Picked
from train.data.loader import Clips
from train.data.order import BLOCK
from train.data.reading import Location, Samples, TarMember

log = logging.getLogger(__name__)
Ints = npt.NDArray[np.integer[Any]]
CHECKERS = 4  # threads
SPARSE = 4  # a range of more than so many times the bytes of its clips is not read whole
TARS = b"tars"  # in the metadata of a schema: their URIs, as JSON
CLIPS = pa.schema([("key", pa.string()), ("text", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))])
LOCATION = ("tar", "offset", "size")  # columns
UNREAD = ("key", "tags", "mids", "captions", "events")  # fields of a Clip that the reading of its audio does not need


class TableClips:
    """Clips as rows of a table: members of tars by their location, or clips of a listing in the column `clip`."""

    def __init__(self, table: pa.Table, name: str = "") -> None:
        """Take a table in batches of `ROWS` rows, and the name of its file where it has one."""
        self.table, self.name = table, name
        self.keys: Sequence[str] = Column(table["key"])
        self.texts: Sequence[list[str]] = Column(table["text"])
        self.tags: Sequence[list[str]] = Column(table["tags"])
        has_phrases = PHRASES in table.column_names
        self.phrases: Sequence[list[Phrase] | None] = Column(table[PHRASES]) if has_phrases else Absent(len(table))
        self.tars: list[str] = json.loads((table.schema.metadata or {}).get(TARS, b"[]"))
        batches = table.to_batches() if self.tars else []
        self.locations = [[batch[name].to_numpy() for name in LOCATION] for batch in batches]
        self.digests = table["sha256"] if "sha256" in table.column_names else None

    def location(self, index: int) -> Location:
        """Return where the audio of a clip is stored; neighbours in a tar are read together."""
        if not self.tars:
            fields = self.table["clip"][index].as_py()
            lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
            return Clip(key=self.keys[index], **(fields | lists))
        batch, row = divmod(index, ROWS)
        tar, offset, size = self.locations[batch]
        first, last = _range(tar, offset, size, row)
        sha256 = "" if self.digests is None else self.digests[index].as_py().hex()
        return TarMember(self.tars[tar[row]], int(offset[row]), int(size[row]), sha256, first, last)


class ListedClips(TableClips):
    """Clips of a listing, each in a file of its own; rows without captions get the label phrases, or are left out."""

    def __init__(
        self, clips: Sequence[Clip], label_phrases: Sequence[str], broken: Collection[str] = (), keep_all: bool = False
    ) -> None:
        texts = [list(c.captions) or [p.format(" and ".join(c.tags).lower()) for p in label_phrases] for c in clips]
        kept = [
            (clip, text)
            for clip, text in zip(clips, texts, strict=True)
            if keep_all or (text and (clip.captions or clip.tags) and clip.key not in broken)
        ]
        rows = [{"key": clip.key, "text": text, "tags": clip.tags} for clip, text in kept]
        read = [field.name for field in dataclasses.fields(Clip) if field.name not in UNREAD]
        located = pa.array([{name: getattr(clip, name) for name in read} for clip, _ in kept])
        table = pa.Table.from_pylist(rows, schema=CLIPS).append_column("clip", located)
        super().__init__(clip_file.batched(table))
        self.folds = {clip.fold for clip, _ in kept}
        self.left_out = len(clips) - len(kept)  # without a caption, or broken

    def samples(self, index: int) -> Samples:
        """Read and decode one clip."""
        clip = self.location(index)
        assert isinstance(clip, Clip)
        return sources.read_samples(clip)

    def find_broken(self) -> dict[str, str]:
        """Decode every clip once; return {key: reason} of those that cannot be used."""
        with ThreadPoolExecutor(CHECKERS) as pool:
            reasons = pool.map(self._reason, range(len(self.keys)))
            return {key: reason for key, reason in zip(self.keys, reasons, strict=True) if reason}

    def _reason(self, index: int) -> str:
        try:
            self.samples(index)
        except audio.AudioError as error:
            return error.reason
        return ""


class Mixture:
    """Several datasets under one numbering, one after the other; `sizes` are their numbers of clips."""

    def __init__(self, datasets: Sequence[Clips]) -> None:
        self.datasets, self.sizes = datasets, tuple(len(dataset.keys) for dataset in datasets)
        self.starts = np.cumsum([0, *self.sizes])
        self.keys: Sequence[str] = Joined([dataset.keys for dataset in datasets], self.starts)
        self.texts: Sequence[list[str]] = Joined([dataset.texts for dataset in datasets], self.starts)
        self.tags: Sequence[list[str]] = Joined([dataset.tags for dataset in datasets], self.starts)
        self.phrases: Sequence[list[Phrase] | None] = Joined([dataset.phrases for dataset in datasets], self.starts)

    def location(self, index: int) -> Location:
        """Return where the audio of a clip is stored."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.datasets[number].location(index - int(self.starts[number]))


class ClipSubset:
    """Some clips of others."""

    def __init__(self, clips: Clips, rows: Sequence[int] | Ints) -> None:
        self.clips, self.rows = clips, np.asarray(rows, np.int32)
        self.keys: Sequence[str] = Picked(clips.keys, self.rows)
        self.texts: Sequence[list[str]] = Picked(clips.texts, self.rows)
        self.tags: Sequence[list[str]] = Picked(clips.tags, self.rows)
        self.phrases: Sequence[list[Phrase] | None] = Picked(clips.phrases, self.rows)

    def location(self, index: int) -> Location:
        """Return where the audio of a clip is stored."""
        return self.clips.location(int(self.rows[index]))


def fingerprint(clips: Clips) -> str:
    """Return a hash of the keys, captions and tags of clips; it does not depend on where their audio is stored."""
    return _hash(zip(clips.keys, clips.texts, clips.tags, strict=True))


def phrases_fingerprint(clips: Clips) -> str:
    """Return a hash of the phrases and times of clips."""
    return _hash(clips.phrases)


def _hash(rows: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def hold_out(clips: Clips, count: int, seed: int) -> set[str]:
    """Return the keys of `count` clips, the same whatever the order of the clips."""
    digests = (hashlib.sha256(f"{seed} {key}".encode()).digest()[:8] for key in clips.keys)
    hashes = np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64, len(clips.keys))
    smallest = np.unique(hashes)[:count]  # a key that several datasets have counts once
    return {clips.keys[int(row)] for row in np.flatnonzero(hashes <= smallest[-1])} if len(smallest) else set()


def check_several(keys: Iterable[str], flag: str, value: object) -> None:
    """Raise InputError unless there are two different clips to train on, by their keys."""
    if _all_same(keys):
        raise InputError(flag, value, "leaves fewer than 2 clips to train on; give more")


def warn_alike(texts: Iterable[Collection[str]], flag: str, value: object) -> None:
    """Warn when all clips have the same captions: the loss falls, but the model learns nothing of audio."""
    if alike(texts):
        log.warning("%s %s: all clips have the same captions; nothing of audio can be learned from them", flag, value)


def alike(targets: Iterable[Collection[str]]) -> bool:
    """Return whether all clips have the same captions, or labels."""
    return _all_same(map(frozenset, targets))


def _all_same(values: Iterable[object]) -> bool:
    """Return whether all values are equal; it stops at the first one that differs."""
    rest = iter(values)
    first = next(rest, None)
    return all(each == first for each in rest)


def tables_of(clips: Sequence[Clips]) -> list[TableClips]:
    """Return the whole datasets that clips were taken from."""
    whole = {id(dataset): dataset for dataset in map(_whole, clips)}  # once each, in order
    return [dataset for dataset in whole.values() if isinstance(dataset, TableClips)]


def _whole(clips: Clips) -> Clips:
    while isinstance(clips, ClipSubset):
        clips = clips.clips
    return clips


def _range(tar: Ints, offset: Ints, size: Ints, row: int) -> tuple[int, int]:
    """Return the first byte and the end of the range that a clip is read with: that of its block in its tar."""
    start = row - row % BLOCK
    tars, begins, sizes = (column[start : start + BLOCK].tolist() for column in (tar, offset, size))
    at = row - start
    first = last = at
    while first and tars[first - 1] == tars[at]:
        first -= 1
    while last + 1 < len(tars) and tars[last + 1] == tars[at]:
        last += 1
    begin = min(begins[first : last + 1])
    end = max(map(add, begins[first : last + 1], sizes[first : last + 1]))
    if end - begin <= SPARSE * sum(sizes[first : last + 1]):
        return begin, end
    return begins[at], begins[at] + sizes[at]
