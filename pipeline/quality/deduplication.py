"""Clips of a dataset that hold the recording of an earlier one, found before any of them is captioned.

    <data>/copies/00000-words.parquet   the fingerprint of each clip of a shard that would be captioned (WORDS)
    <data>/copies/00000.parquet         which of them are copies, and of what (COPIES)

Readers compute the fingerprints, shard by shard in any order; an existing part is not made again. When all fingerprints
exist, the copies are searched in the order of the plan, and are fixed from then on: the same clips are left out in whatever
order the shards are written, and whatever the outcome of the kept clip.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.audio.fingerprint import MAX_ERRORS, MIN_FRAMES, SILENCE

log = logging.getLogger(__name__)
FOLDER = "copies"
WORDS = pa.schema([("key", pa.string()), ("words", pa.binary())])  # words: uint32, little-endian
COPIES = pa.schema([("key", pa.string()), ("detail", pa.string())])
MIN_OVERLAP = 0.9  # share of the longer clip's sound that must overlap the sound of the other clip
NEIGHBOURS = 4  # earlier frames with its word that a frame is paired with: keeps the cost linear in the clips
MIN_VOTES = 2  # frames that two clips share, at one distance in both, before all bits are compared
MAX_CLIPS, MAX_SHIFT = 2**24, 2**13  # that fit into a vote; a tenth of ten minutes are 1,289 frames
PART_BITS = 4  # frames are sorted in 16 parts, one after the other, to need little memory beside the words
READERS = 16  # tables read or written at a time, as object storage mostly waits


class WordsRow(TypedDict):
    """The fingerprint of one clip: a row of WORDS."""

    key: str
    words: bytes


class Copy(NamedTuple):
    """A clip that holds the recording of an earlier one."""

    kept: int  # index of the earliest clip with the recording
    bit_error_rate: float  # between the two that were compared


def write_words(out: str, shard: int, rows: list[WordsRow]) -> None:
    """Publish the fingerprints of a shard's clips, rows of WORDS."""
    storage.publish_table(_uri(out, shard, "-words"), pa.Table.from_pylist(rows, schema=WORDS))


def without_words(out: str, shards: Iterable[int]) -> list[int]:
    """Return the shards that have no fingerprints yet."""
    return _without(out, shards, "-words")


def without_copies(out: str, shards: Iterable[int]) -> list[int]:
    """Return the shards whose copies are not fixed yet."""
    return _without(out, shards, "")


def fix(out: str, num_shards: int) -> None:
    """Search copies over all fingerprints, and fix those of the shards where none are fixed yet."""
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda shard: storage.read_table(_uri(out, shard, "-words")), range(num_shards)))
        keys = [key for table in tables for key in table["key"].to_pylist()]
        found = find(keys, (np.frombuffer(data, "<u4") for table in tables for data in table["words"].to_pylist()))
        ends = np.cumsum([len(table) for table in tables]).tolist()
        todo = without_copies(out, range(num_shards))
        clips = [range(end - len(table), end) for end, table in zip(ends, tables, strict=True)]
        list(pool.map(lambda shard: _publish(out, shard, keys, found, clips[shard]), todo))
    log.info("copies: %d of %d clips hold the recording of an earlier one", len(found), len(keys))


def _publish(out: str, shard: int, keys: list[str], found: dict[int, Copy], clips: range) -> None:
    rows = [
        {"key": keys[clip], "detail": f"the recording of {keys[copy.kept]}, {copy.bit_error_rate:.0%} of bits differ"}
        for clip in clips
        if (copy := found.get(clip))
    ]
    storage.publish_table(_uri(out, shard), pa.Table.from_pylist(rows, schema=COPIES))


def of_shard(out: str, shard: int) -> dict[str, str]:
    """Return the copies in a shard: key -> detail, which names the kept clip."""
    return {row["key"]: row["detail"] for row in storage.read_table(_uri(out, shard)).to_pylist()}


def find(keys: Sequence[str], fingerprints: Iterable[np.ndarray]) -> dict[int, Copy]:
    """Return the clips that hold the recording of an earlier one, by index.

    Two clips with one key are two attempts at one clip, and no copies.

    Args:
        keys: of the clips, in the order of the plan.
        fingerprints: their words, uint32 (F,).
    """
    assert len(keys) < MAX_CLIPS, len(keys)
    clips = [np.asarray(words, np.uint32) for words in fingerprints]
    root = list(range(len(clips)))
    found: dict[int, Copy] = {}
    for clip, earlier, shift in _candidates(clips):
        if root[clip] != clip or keys[clip] == keys[root[earlier]]:
            continue
        errors = _compare(clips[clip], clips[earlier], shift)
        if errors is not None:
            root[clip] = root[earlier]
            found[clip] = Copy(root[clip], errors)
    return found


def _candidates(clips: list[np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """Yield (clip, earlier clip, shift of its cut in frames) of pairs that share words, in the order of the clips."""
    lengths = np.array([len(words) for words in clips], np.int64)
    words = np.concatenate([*clips, np.zeros(1, np.uint32)])[:-1]
    parts = (words * np.uint32(2_654_435_761) >> np.uint32(32 - PART_BITS)).astype(np.uint8)  # equal words, one part
    votes = [
        _votes(words, lengths, np.flatnonzero((parts == part) & (words != SILENCE))) for part in range(2**PART_BITS)
    ]
    pairs, count = np.unique(np.concatenate(votes), return_counts=True)
    for vote in pairs[count >= MIN_VOTES].tolist():
        both, shift = divmod(vote, 2 * MAX_SHIFT)
        yield *divmod(both, MAX_CLIPS), shift - MAX_SHIFT


def _votes(words: np.ndarray, lengths: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return (clip, earlier clip, shift), packed in int64, for frames that share a word with a frame of an earlier clip."""
    frames = frames[(frames == 0) | (words[frames] != words[frames - 1])]  # a steady sound repeats its word
    frames = frames[np.argsort(words[frames], kind="stable")]  # by word, then in the order of the plan
    ends = np.cumsum(lengths)
    clip = np.searchsorted(ends, frames, side="right")
    position = frames - (ends - lengths)[clip]
    votes = []
    for step in range(1, NEIGHBOURS + 1):
        late, early = slice(step, None), slice(None, -step)
        shift = position[early] - position[late]
        one, other = lengths[clip[late]], lengths[clip[early]]
        longer, shorter = np.maximum(one, other), np.minimum(one, other)
        alike = (words[frames[late]] == words[frames[early]]) & (clip[late] > clip[early])
        alike &= (shorter >= MIN_OVERLAP * longer) & (np.abs(shift) <= (1 - MIN_OVERLAP) * longer)
        votes.append(((clip[late] * MAX_CLIPS + clip[early]) * (2 * MAX_SHIFT) + shift + MAX_SHIFT)[alike])
    return np.concatenate(votes)


def _compare(words: np.ndarray, earlier: np.ndarray, shift: int) -> float | None:
    """Return the share of bits that differ with frame 0 on frame `shift` of the earlier clip; None for no copy."""
    first, last = max(shift, 0), min(shift + len(words), len(earlier))
    one, other = words[first - shift : last - shift], earlier[first:last]
    both = (one != SILENCE) & (other != SILENCE)
    sounding = max(np.count_nonzero(words != SILENCE), np.count_nonzero(earlier != SILENCE))
    if both.sum() < max(MIN_FRAMES, MIN_OVERLAP * sounding):
        return None
    errors = float(np.bitwise_count(one[both] ^ other[both]).mean() / 32)
    return errors if errors <= MAX_ERRORS else None


def _without(out: str, shards: Iterable[int], suffix: str) -> list[int]:
    names = set(storage.list_names(storage.join(out, FOLDER)))
    return [shard for shard in shards if f"{shard:05d}{suffix}.parquet" not in names]


def _uri(out: str, shard: int, suffix: str = "") -> str:
    return storage.join(out, FOLDER, f"{shard:05d}{suffix}.parquet")
