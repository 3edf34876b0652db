"""Location of a clip -> its samples, in any process. Remote tars are read in ranges that hold several neighbours.

This module imports neither torch nor Ray: the processes that decode start quickly and stay small.
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
import numpy.typing as npt

from pipeline import audio, sources, storage
from pipeline.sources.clip import Clip

THREADS = 4  # of one process; libsndfile and soxr release the interpreter lock, and a store answers slowly
MAX_MEMORY_BYTES = 512 * 2**20  # of ranges, in one process
EVICT_EVERY = 32  # ranges written between two checks of the size of the cache folder


class TarMember(NamedTuple):
    """A clip inside a tar."""

    uri: str
    offset: int
    size: int
    sha256: str  # of the bytes, or its first digits; '' is not checked
    first: int  # range of the tar that is read with its neighbours
    last: int  # exclusive


Location = TarMember | Clip
Samples = npt.NDArray[np.int16]  # (T,)
Rows = npt.NDArray[np.int16]  # (B, T)


class CacheConfig(NamedTuple):
    """A folder that keeps ranges of remote tars; none where `folder` is empty."""

    folder: str = ""
    max_bytes: int = 0


class ClipRequest(NamedTuple):
    """One row of a batch: a clip and where to crop it."""

    location: Location
    crop: float  # start of the crop: 0 is the first possible one, and 1 would be behind the last


class Filled(NamedTuple):
    """What is known of rows whose samples are in place."""

    num_samples: npt.NDArray[np.int64]  # (B,) true lengths
    faults: list[str]  # '' or the reason
    starts: list[int]  # samples of each clip that were cropped before its row


class Loaded(NamedTuple):
    """Rows of a batch."""

    waveform: Rows
    filled: Filled


def load(requests: list[ClipRequest], num_samples: int, cache: CacheConfig) -> Loaded:
    """Read, decode and crop clips to (B, num_samples); see `fill`."""
    waveform = np.empty((len(requests), num_samples), np.int16)
    return Loaded(waveform, fill(waveform, requests, cache))


def fill(rows: Rows, requests: list[ClipRequest], cache: CacheConfig) -> Filled:
    """Read, decode and crop clips into rows, in threads; a clip that cannot be read is silence and a fault."""
    filled = list(_threads(os.getpid()).map(lambda row, request: _fill(row, request, cache), rows, requests))
    lengths, faults, starts = zip(*filled, strict=True)
    return Filled(np.array(lengths), list(faults), list(starts))


def read(location: Location, cache: CacheConfig) -> Samples:
    """Read and decode one clip. Raises AudioError with the reason when it cannot be used."""
    try:
        if isinstance(location, Clip):
            return sources.read_samples(location)
        data = _bytes(location, cache)
    except OSError as error:
        raise audio.AudioError("unreadable", str(error)) from error
    if location.sha256 and not hashlib.sha256(data).hexdigest().startswith(location.sha256):
        raise audio.AudioError(
            "unreadable", f"{location.size} bytes at {location.offset} of {location.uri} are not as written"
        )
    return audio.decode(data)


def drop_neighbours(location: Location) -> Location:
    """Return a location whose range holds this clip only."""
    if isinstance(location, Clip):
        return location
    return location._replace(first=location.offset, last=location.offset + location.size)


def _fill(row: Samples, request: ClipRequest, cache: CacheConfig) -> tuple[int, str, int]:
    """Put a clip into a row, zero-padded; return its true length, at least 1, its fault, and where the row begins."""
    try:
        samples, fault = read(request.location, cache), ""
    except audio.AudioError as error:
        samples, fault = np.zeros(0, np.int16), str(error)
    start = int(request.crop * (max(0, len(samples) - len(row)) + 1))
    cut = samples[start : start + len(row)]
    row[: len(cut)], row[len(cut) :] = cut, 0
    return max(1, len(cut)), fault, start


def _bytes(location: TarMember, cache: CacheConfig) -> bytes:
    if "://" not in location.uri:
        return storage.read(location.uri, location.offset, location.size)
    data = _ranges(os.getpid(), cache).read(location.uri, location.first, location.last)
    return data[location.offset - location.first :][: location.size]


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


@lru_cache(maxsize=1)
def _ranges(_process: int, cache: CacheConfig) -> "RangeCache":
    return RangeCache(cache)


class RangeCache:
    """Ranges of remote files: the latest in memory, more in the cache folder where there is one; both bounded."""

    def __init__(self, cache: CacheConfig) -> None:
        self.cache, self.lock, self.writes = cache, Lock(), 0
        self.ranges: OrderedDict[tuple[str, int, int], Future[bytes]] = OrderedDict()

    def read(self, uri: str, first: int, last: int) -> bytes:
        """Return the bytes from `first` up to `last`; a thread waits for a range that another one reads."""
        key = (uri, first, last)
        with self.lock:
            future = self.ranges.pop(key, None)
            reads = future is None
            self.ranges[key] = future = future or Future()
        if reads:
            try:
                future.set_result(self._fetch(*key))
            except BaseException as error:
                with self.lock:
                    self.ranges.pop(key, None)
                future.set_exception(error)
            self._forget()
        return future.result()

    def _forget(self) -> None:
        with self.lock:
            size = sum(last - first for _, first, last in self.ranges)
            while size > MAX_MEMORY_BYTES and len(self.ranges) > 1:
                (_, first, last), _ = self.ranges.popitem(last=False)
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
            _evict(path.parent, self.cache.max_bytes)


def _evict(folder: Path, max_bytes: int) -> None:
    """Remove the least recently used files until the rest fit."""
    found = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process evicts files, too
            continue
        found.append((status.st_mtime_ns, status.st_size, path))
    size = sum(each for _, each, _ in found)
    for _, each, path in sorted(found):
        if size <= max_bytes:
            break
        path.unlink(missing_ok=True)
        size -= each
