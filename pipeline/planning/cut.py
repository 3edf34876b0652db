"""Where a shard ends: after so many clips, or before the clip that would make it larger than so many bytes.

The listing alone decides, nothing is decoded. A clip counts 64,000 bytes, those of canonical audio, for each second that the
listing gives; else the bytes of its file or tar member; else nothing. It counts as the longest clip that is read at most.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from pipeline import audio, storage

T = TypeVar("T")
MAX_SHARD_MB = 1000.0  # 512 clips of 30 s, or of 10 s as WAV at 48 kHz in stereo
BYTES_PER_S = 2 * audio.SAMPLE_RATE_HZ
MAX_CLIP_BYTES = audio.MAX_DURATION_S * BYTES_PER_S
WEIGHED = ("uri", "offset", "size", "fault", "start_s", "end_s")  # of a clip, or of a row of a plan
MAX_FOLDERS = 1000  # listed for the sizes of files; in an object store each is a request


def cut(
    clips: Iterable[T],
    max_clips: int,
    max_mb: float | None,
    fields: Callable[[T], tuple[Any, ...]] = attrgetter(*WEIGHED),
) -> Iterator[list[T]]:
    """Yield the clips of one shard after another; a clip larger than the bound is a shard of its own.

    Args:
        clips: of any type.
        max_clips: in a shard.
        max_mb: megabytes in a shard; 0 or None bounds by clips alone, and looks at no file's size.
        fields: gives the WEIGHED fields of a clip.
    """
    weights = Weights()
    shard: list[T] = []
    size = 0
    for clip in clips:
        added = weights.of(*fields(clip)) if max_mb else 0
        if shard and (len(shard) == max_clips or (max_mb and size + added > max_mb * 1_000_000)):
            yield shard
            shard, size = [], 0
        shard.append(clip)
        size += added
    if shard:
        yield shard


def cut_as(clips: Iterable[T], counts: Iterable[int], max_clips: int) -> Iterator[list[T]]:
    """Yield clips cut into shards of `counts` clips, as an earlier listing was; what is listed beyond, by `max_clips`."""
    rest = iter(clips)
    for count in counts:
        if shard := list(islice(rest, count)):
            yield shard
    while shard := list(islice(rest, max_clips)):
        yield shard


class Weights:
    """What clips count, in bytes. A folder is listed once, where a clip without a length lies in it."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # hashes of names in order, and the bytes of each

    def of(self, uri: str, offset: int, size: int, fault: str, start_s: float, end_s: float) -> int:
        """Return the bytes that a clip counts; the arguments are as in `Clip`."""
        if fault:
            return 0
        if end_s > start_s:
            return min(int((end_s - start_s) * BYTES_PER_S), MAX_CLIP_BYTES)
        if size < 0 and offset < 0:
            size = self._size(uri)
        return min(max(size, 0), MAX_CLIP_BYTES)

    def _size(self, uri: str) -> int:
        """Return the bytes of a file, -1 where its folder does not list it."""
        folder, _, name = uri.rpartition("/")
        if folder not in self._folders:
            if len(self._folders) == MAX_FOLDERS:
                return -1
            self._folders[folder] = _sizes(folder)
        hashes, sizes = self._folders[folder]
        place = int(hashes.searchsorted(hash(name)))
        return int(sizes[place]) if place < len(hashes) and hashes[place] == hash(name) else -1


def _sizes(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted hashes of the names in a folder and the size of each file; sixteen bytes for a file."""
    try:
        listed = np.fromiter(((hash(name), size) for name, size in storage.file_sizes(folder)), np.dtype("i8,i8"))
    except OSError:  # a folder that cannot be listed may still be read from
        listed = np.empty(0, np.dtype("i8,i8"))
    listed = listed[np.argsort(listed["f0"])]
    return np.ascontiguousarray(listed["f0"]), np.ascontiguousarray(listed["f1"])
