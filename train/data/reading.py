"""Where a clip's audio lies -> its samples, in whatever process asks. Remote tars are read a piece of neighbours at a time.

Imports no torch and no Ray: the processes that decode start quickly and stay small.
"""

import hashlib
import os
import uuid
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from pipeline import audio, sources, storage
from pipeline.sources.clip import Clip

THREADS = 4  # of one process; libsndfile and soxr release the interpreter lock, and a store answers late
HELD_BYTES = 512 * 2**20  # pieces that one process holds in memory
EVICT_EVERY = 32  # pieces written between looks at what the disk cache holds


class TarMember(NamedTuple):
    """A clip inside a tar."""

    uri: str
    offset: int
    size: int
    sha256: str  # of the bytes, or how it begins; '' is not checked
    first: int  # bytes of the tar that are read together with its neighbours
    last: int


class CacheConfig(NamedTuple):
    """A folder that keeps pieces of remote tars."""

    folder: str = ""
    most_bytes: int = 0


class ClipRequest(NamedTuple):
    """One row of a batch: a clip and where to crop it."""

    place: TarMember | Clip
    crop: float  # share, from 0 up to 1, of the places where a crop may start


class Loaded(NamedTuple):
    """Rows of a batch."""

    waveform: np.ndarray  # (B, T) int16; zeros where there is a fault
    num_samples: np.ndarray  # (B,) true lengths
    faults: list[str]  # '' or what is wrong


def load(wanted: list[ClipRequest], num_samples: int, cache: CacheConfig) -> Loaded:
    """Read, decode and crop clips to (B, num_samples); a clip that cannot be read is a fault, not an error."""
    rows = list(_threads(os.getpid()).map(lambda each: _row(each, num_samples, cache), wanted))
    lengths = np.array([max(1, len(samples)) for samples, _ in rows])
    waveform = np.stack([audio.fit(samples, num_samples) for samples, _ in rows])
    return Loaded(waveform, lengths, [fault for _, fault in rows])


def read(place: TarMember | Clip, cache: CacheConfig) -> np.ndarray:
    """Read and decode one clip; int16 (T,). Raises AudioError for whatever is wrong with it."""
    if isinstance(place, Clip):
        return sources.read_samples(place)
    try:
        data = _bytes(place, cache)
    except OSError as error:
        raise audio.AudioError("unreadable", str(error)) from error
    if place.sha256 and not hashlib.sha256(data).hexdigest().startswith(place.sha256):
        raise audio.AudioError("unreadable", f"{place.size} bytes at {place.offset} of {place.uri} are not as written")
    return audio.decode(data)


def alone(place: TarMember | Clip) -> TarMember | Clip:
    """Return a place that is read without its neighbours."""
    if isinstance(place, Clip):
        return place
    return place._replace(first=place.offset, last=place.offset + place.size)


def _row(wanted: ClipRequest, num_samples: int, cache: CacheConfig) -> tuple[np.ndarray, str]:
    try:
        samples = read(wanted.place, cache)
    except audio.AudioError as error:
        return np.zeros(0, np.int16), str(error)
    start = int(wanted.crop * (max(0, len(samples) - num_samples) + 1))
    return samples[start : start + num_samples], ""


def _bytes(place: TarMember, cache: CacheConfig) -> bytes:
    if "://" not in place.uri:
        return storage.read(place.uri, place.offset, place.size)
    piece = _pieces(os.getpid(), cache).read(place.uri, place.first, place.last)
    return piece[place.offset - place.first :][: place.size]


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


@lru_cache(maxsize=1)
def _pieces(_process: int, cache: CacheConfig) -> "RangeCache":
    return RangeCache(cache)


class RangeCache:
    """Pieces of remote files: the latest in memory, more in the cache folder where one is named; both bounded."""

    def __init__(self, cache: CacheConfig) -> None:
        self.cache, self.lock, self.writes = cache, Lock(), 0
        self.held: OrderedDict[tuple[str, int, int], Future[bytes]] = OrderedDict()

    def read(self, uri: str, first: int, last: int) -> bytes:
        """Return the bytes from `first` up to `last`; who asks for a piece that another thread reads waits for that."""
        key = (uri, first, last)
        with self.lock:
            future = self.held.pop(key, None)
            reads = future is None
            self.held[key] = future = future or Future()
        if reads:
            try:
                future.set_result(self._fetch(*key))
            except BaseException as error:
                with self.lock:
                    self.held.pop(key, None)
                future.set_exception(error)
            self._forget()
        return future.result()

    def _forget(self) -> None:
        with self.lock:
            size = sum(last - first for _, first, last in self.held)
            while size > HELD_BYTES and len(self.held) > 1:
                (_, first, last), _ = self.held.popitem(last=False)
                size -= last - first

    def _fetch(self, uri: str, first: int, last: int) -> bytes:
        if not self.cache.folder:
            return storage.read(uri, first, last - first)
        path = Path(self.cache.folder) / hashlib.sha256(f"{uri} {first} {last}".encode()).hexdigest()
        try:
            data = path.read_bytes()
            if len(data) == last - first:
                os.utime(path)  # the least recently used goes first
                return data
        except FileNotFoundError:
            pass
        data = storage.read(uri, first, last - first)
        self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")  # other processes of this machine share the folder
        temporary.write_bytes(data)
        temporary.replace(path)
        self.writes += 1
        if self.writes % EVICT_EVERY == 0:
            _evict(path.parent, self.cache.most_bytes)


def _evict(folder: Path, most_bytes: int) -> None:
    """Remove the least recently used files until the rest fit."""
    found = []
    for path in folder.iterdir():
        try:
            told = path.stat()
        except FileNotFoundError:  # another process evicts too
            continue
        found.append((told.st_mtime_ns, told.st_size, path))
    size = sum(each for _, each, _ in found)
    for _, each, path in sorted(found):
        if size <= most_bytes:
            break
        path.unlink(missing_ok=True)
        size -= each
