"""What is trained on: captioned clips of shards, of an index of foreign tars, or of a listing; one numbering for all."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline import audio, foreign_index, shards, sources, storage
from pipeline.cli import InputError
from pipeline.clip import Clip
from pipeline.selection import SelectionConfig, select
from train.loader import Clips
from train.order import BLOCK
from train.reading import Member

CHECKERS = 4  # threads
SPARSE = 4  # a piece with more than so many times the bytes that are used of it is not read whole


class ListedClips:
    """Clips of a source, read from their own files; rows without captions get the label phrases, or are left out."""

    def __init__(
        self, clips: Sequence[Clip], label_phrases: Sequence[str], broken: Collection[str] = (), keep_all: bool = False
    ) -> None:
        texts = [list(c.captions) or [p.format(" and ".join(c.tags).lower()) for p in label_phrases] for c in clips]
        kept = [
            (clip, text)
            for clip, text in zip(clips, texts, strict=True)
            if keep_all or (text and (clip.captions or clip.tags) and clip.key not in broken)
        ]
        self.keys = [clip.key for clip, _ in kept]
        self.texts = [text for _, text in kept]
        self.tags = [list(clip.tags) for clip, _ in kept]
        self.clips = [clip for clip, _ in kept]

    def place(self, index: int) -> Clip:
        """Return the clip itself, which tells where its audio is."""
        return self.clips[index]

    def samples(self, index: int) -> np.ndarray:
        """Read and decode one clip."""
        return sources.read_samples(self.clips[index])

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


class TarClips:
    """Clips inside tars, by the place of each; what lies together is read together."""

    def __init__(
        self,
        keys: list[str],
        texts: list[list[str]],
        tags: list[list[str]],
        tars: Sequence[str],
        tar: np.ndarray,
        offset: np.ndarray,
        size: np.ndarray,
        sha256: list[str],
    ) -> None:
        """Take the columns, a row for each clip: `tar` is a number in `tars`, `sha256` may be '' where there is none."""
        self.keys, self.texts, self.tags = keys, texts, tags
        self.tars, self.tar, self.offset, self.size, self.sha256 = tars, tar, offset, size, sha256
        self.first, self.last = _pieces(tar, offset, size)

    def place(self, index: int) -> Member:
        """Return where in which tar a clip lies."""
        columns = (self.offset, self.size, self.first, self.last)
        offset, size, first, last = (int(column[index]) for column in columns)
        return Member(self.tars[int(self.tar[index])], offset, size, self.sha256[index], first, last)


class Mixture:
    """Several datasets under one numbering, each after the other; `sizes` tells where one ends."""

    def __init__(self, parts: Sequence[Clips]) -> None:
        self.parts, self.sizes = parts, tuple(len(part.keys) for part in parts)
        self.starts = np.cumsum([0, *self.sizes])
        self.keys = [key for part in parts for key in part.keys]
        self.texts = [texts for part in parts for texts in part.texts]
        self.tags = [tags for part in parts for tags in part.tags]

    def place(self, index: int) -> Member | Clip:
        """Return where the audio of a clip lies."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part].place(index - int(self.starts[part]))


class Chosen:
    """Some clips of others."""

    def __init__(self, clips: Clips, rows: Sequence[int]) -> None:
        self.clips, self.rows = clips, rows
        self.keys = [clips.keys[row] for row in rows]
        self.texts = [clips.texts[row] for row in rows]
        self.tags = [clips.tags[row] for row in rows]

    def place(self, index: int) -> Member | Clip:
        """Return where the audio of a clip lies."""
        return self.clips.place(self.rows[index])


def fingerprint(clips: Clips) -> str:
    """Return a hash of what is trained on: keys, captions and tags, but not where the audio lies."""
    digest = hashlib.sha256()
    for row in zip(clips.keys, clips.texts, clips.tags, strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def open_data(data: Sequence[str], selection: SelectionConfig, label_phrases: Sequence[str] = ()) -> list[Clips]:
    """Open datasets for training, each one clips that have a caption.

    Args:
        data: of each a folder of shards that `pipeline caption` wrote, an index that `pipeline index` wrote, or any listing
            of captioned clips that `pipeline.sources` reads.
        selection: which clips and captions of shards.
        label_phrases: captions for clips of a listing that have tags alone.

    Raises:
        InputError: when there is none, one is not there, is empty, or an overlay is missing.
    """
    if not data:
        raise InputError("--data", "", "give the --out of a finished `python -m pipeline caption`")
    return [_open(each, selection, label_phrases) for each in data]


def hold_out(clips: Clips, count: int, seed: int) -> set[str]:
    """Return the keys of `count` clips, the same whatever the order of the clips."""
    keys = sorted(set(clips.keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    return set(keys[:count])


def check_distinct(
    keys: Iterable[str], learned: Iterable[Collection[str]], flag: str, value: object, noun: str
) -> None:
    """Raise InputError unless there are two different clips to train on, and not all have the same captions or labels.

    A loss would fall all the same, and the model would have learned nothing of audio.

    Args:
        keys: of the clips.
        learned: the captions or labels of each clip.
        flag: where the clips were named.
        value: what was given there.
        noun: "captions" or "labels".
    """
    if _all_same(keys):
        raise InputError(flag, value, "leaves fewer than 2 clips to train on; give more")
    if _all_same(map(frozenset, learned)):
        raise InputError(
            flag, value, f"all clips have the same {noun}, so that nothing tells them apart; give others too"
        )


def _all_same(values: Iterable[object]) -> bool:
    """Tell whether no two values differ; of very many only the first few are looked at, where they do."""
    rest = iter(values)
    first = next(rest, None)
    return all(each == first for each in rest)


def check_present(clips: Sequence[Clips]) -> None:
    """Raise InputError when a tar is missing, or shorter than what is to be read of it."""
    whole = [part.clips if isinstance(part, Chosen) else part for part in clips]
    for part in whole:
        if not isinstance(part, TarClips):
            continue
        needed = np.zeros(len(part.tars), np.int64)
        np.maximum.at(needed, part.tar, part.offset + part.size)
        sizes = [size for size, _ in storage.stamps(part.tars)]
        short = [
            f"{tar} has {size} bytes of {least}"
            for tar, size, least in zip(part.tars, sizes, needed, strict=True)
            if size < least
        ]
        if short:
            raise InputError("--data", short[0], f"{len(short)} of {len(part.tars)} tars are missing or cut short")


def _open(data: str, selection: SelectionConfig, label_phrases: Sequence[str]) -> Clips:
    clips: Clips
    uri = storage.resolve(data)
    if foreign_index.exists(uri):
        _refuse_selection(data, selection)
        clips = _indexed(uri)
    elif storage.exists(storage.join(uri, "sizes.json")):
        clips = _shards(data, selection)
    else:
        _refuse_selection(data, selection)
        try:
            clips = ListedClips(sources.read_clips(data, flag="--data"), label_phrases)
        except InputError as error:
            told = f"no finished dataset of shards, and as a listing it {error.args[2]}"
            raise InputError("--data", data, told) from None
    if not clips.keys:
        raise InputError("--data", data, "no clip has a caption to train on")
    return clips


def _refuse_selection(data: str, selection: SelectionConfig) -> None:
    if selection.captions or selection.filter.audit:
        name = selection.captions or selection.filter.audit
        raise InputError("--data", data, f"has no overlay {name!r}: it is no dataset that `pipeline caption` finished")


def _shards(data: str, selection: SelectionConfig) -> TarClips:
    try:
        index = shards.Index(data)
    except FileNotFoundError as error:
        remedy = f"{error}; write tars that others made into an index first, with `python -m pipeline index`"
        raise InputError("--data", data, remedy) from None
    chosen, tags = select(index, selection), index.tags()
    rows = [clip.row for clip in chosen]
    columns = {
        name: index.written[name].to_numpy(zero_copy_only=False)[rows] for name in ("shard", "flac_offset", "flac_size")
    }
    numbers, tar = np.unique(columns["shard"], return_inverse=True)
    return TarClips(
        keys=[index.keys[row] for row in rows],
        texts=[clip.texts for clip in chosen],
        tags=[tags[row] for row in rows],
        tars=[storage.join(index.data, shards.tar_name(int(number))) for number in numbers],
        tar=tar,
        offset=columns["flac_offset"],
        size=columns["flac_size"],
        sha256=index.written["sha256"].take(rows).to_pylist(),
    )


def _indexed(uri: str) -> TarClips:
    table = foreign_index.read(uri)
    tars, tar = np.unique(table["uri"].to_numpy(), return_inverse=True)
    return TarClips(
        keys=table["key"].to_pylist(),
        texts=table["text"].to_pylist(),
        tags=table["tags"].to_pylist(),
        tars=[str(each) for each in tars],
        tar=tar,
        offset=table["offset"].to_numpy(),
        size=table["size"].to_numpy(),
        sha256=[""] * len(table),
    )


def _pieces(tar: np.ndarray, offset: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first byte and the end of the piece that each clip is read with: those of its block in its tar."""
    if not len(tar):
        return offset, size
    block = np.arange(len(tar)) // BLOCK
    starts = np.flatnonzero(np.r_[True, (np.diff(block) != 0) | (np.diff(tar) != 0)])
    count = np.diff(np.r_[starts, len(tar)])
    first, last = np.minimum.reduceat(offset, starts), np.maximum.reduceat(offset + size, starts)
    whole = np.repeat(last - first <= SPARSE * np.add.reduceat(size, starts), count)
    return np.where(whole, np.repeat(first, count), offset), np.where(whole, np.repeat(last, count), offset + size)
