"""Reading: ranges of remote tars that hold several neighbours, each fetched once; a bounded cache; damage is an error."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import audio, storage
from pipeline.audio import AudioError
from train.data import clip_file, reading
from train.data.clip_sets import TARS, TableClips
from train.data.datasets import MEMBERS
from train.data.reading import CacheConfig, RangeCache, TarMember

DATA = bytes(range(256)) * 40


@pytest.fixture
def fetched(s3: str, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Count the reads of a remote file, by (offset, size)."""
    storage.publish(f"{s3}/pieces.bin", DATA)
    counts: Counter[tuple[int, int]] = Counter()
    read = storage.read

    def counting(uri: str, offset: int = 0, size: int | None = None) -> bytes:
        counts[offset, size or -1] += 1
        return read(uri, offset, size)

    monkeypatch.setattr(reading.storage, "read", counting)
    return counts


def test_a_piece_is_fetched_once_for_all_threads(s3: str, fetched: Counter[tuple[int, int]]) -> None:
    pieces = RangeCache(CacheConfig())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: pieces.read(f"{s3}/pieces.bin", 100, 900), range(40)))
    assert set(found) == {DATA[100:900]} and fetched == {(100, 800): 1}


def test_memory_holds_the_latest_pieces(
    s3: str, fetched: Counter[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_MEMORY_BYTES", 2000)
    pieces = RangeCache(CacheConfig())
    for first in (0, 1000, 0, 2000, 0, 1000):  # the third piece pushes out the second, which is then read again
        assert pieces.read(f"{s3}/pieces.bin", first, first + 1000) == DATA[first : first + 1000]
    assert fetched == {(0, 1000): 1, (1000, 1000): 2, (2000, 1000): 1}


def test_the_disk_serves_the_next_process_and_stays_bounded(
    s3: str, tmp_path: Path, fetched: Counter[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "EVICT_EVERY", 1)
    cache = CacheConfig(str(tmp_path / "cache"), 2500)
    for _ in range(2):
        assert RangeCache(cache).read(f"{s3}/pieces.bin", 0, 1000) == DATA[:1000]
    assert fetched == {(0, 1000): 1}
    for first in (1000, 2000, 3000):
        RangeCache(cache).read(f"{s3}/pieces.bin", first, first + 1000)
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 2 and sum(path.stat().st_size for path in kept) <= 2500


def test_a_cut_cache_file_is_read_again(s3: str, tmp_path: Path, fetched: Counter[tuple[int, int]]) -> None:
    cache = CacheConfig(str(tmp_path), 10**9)
    RangeCache(cache).read(f"{s3}/pieces.bin", 0, 1000)
    (path,) = tmp_path.iterdir()
    os.truncate(path, 10)
    assert RangeCache(cache).read(f"{s3}/pieces.bin", 0, 1000) == DATA[:1000]


def test_a_piece_that_cannot_be_read_is_tried_again_next_time(s3: str) -> None:
    pieces = RangeCache(CacheConfig())
    with pytest.raises(FileNotFoundError):
        pieces.read(f"{s3}/late.bin", 0, 10)
    storage.publish(f"{s3}/late.bin", b"0123456789")
    assert pieces.read(f"{s3}/late.bin", 0, 10) == b"0123456789"


def test_neighbours_share_a_piece_and_sparse_ones_do_not() -> None:
    """Twenty clips of 100 bytes in two tars: a block of 16 ends with its tar; clips far apart are read one by one."""
    tar = np.array([0] * 10 + [1] * 10)
    offset = np.r_[np.arange(10), np.arange(10)] * 100
    size = np.full(20, 100)

    def clips(offset: np.ndarray) -> TableClips:
        names = {"key": [""] * 20, "text": [[""]] * 20, "tags": [[""]] * 20}
        schema = MEMBERS.with_metadata({TARS: '["a.tar", "b.tar"]'})
        return TableClips(clip_file.batched(pa.table({**names, "tar": tar, "offset": offset, "size": size}, schema)))

    dense, sparse = clips(offset), clips(offset * 100)
    pieces = [(dense.location(i).uri, dense.location(i).first, dense.location(i).last) for i in range(20)]
    assert pieces == [("a.tar", 0, 1000)] * 10 + [("b.tar", 0, 600)] * 6 + [("b.tar", 600, 1000)] * 4
    assert sparse.location(3) == TarMember("a.tar", 30_000, 100, "", 30_000, 30_100)


def test_bytes_that_are_not_as_written_are_told(tmp_path: Path) -> None:
    flac = audio.encode_flac(np.arange(3200, dtype=np.int16))
    (tmp_path / "x.tar").write_bytes(flac)
    location = TarMember(str(tmp_path / "x.tar"), 0, len(flac), "0" * 64, 0, len(flac))
    with pytest.raises(AudioError, match=r"unreadable: .* are not as written"):
        reading.read(location, CacheConfig())
    assert len(reading.read(location._replace(sha256=""), CacheConfig())) == 3200
    with pytest.raises(AudioError, match=r"unreadable: .*ends after"):
        reading.read(location._replace(size=len(flac) + 9), CacheConfig())
