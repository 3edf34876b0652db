"""Clips -> batches in one global order, whatever the number of ranks.

The order of an epoch is a permutation keyed by (seed, epoch); step s of the run takes the next `batch_size` clips of it and
rank r of n takes every n-th of those. So the state of the data is one number, the step, and a run can go on with another
number of workers. Random crops and caption choices are keyed by (seed, epoch, clip) for the same reason.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline import audio, shards, sources
from pipeline.cli import InputError, JobError
from pipeline.clip import Clip
from pipeline.selection import SelectionConfig, select

DECODERS = 2  # threads; libsndfile and soxr release the interpreter lock
BATCHES_AHEAD = 3


class Clips(Protocol):
    """Random access to captioned clips."""

    keys: list[str]
    texts: list[list[str]]
    tags: list[list[str]]

    def samples(self, index: int) -> np.ndarray:
        """Return int16 (T,) at `audio.SAMPLE_RATE_HZ`; raises AudioError when the clip is broken."""
        ...


class ListedClips:
    """Clips of a source, read from their own files; rows without captions get the label phrases."""

    def __init__(self, clips: Sequence[Clip], label_phrases: Sequence[str], broken: Collection[str] = ()) -> None:
        texts = [list(c.captions) or [p.format(" and ".join(c.tags).lower()) for p in label_phrases] for c in clips]
        kept = [
            (clip, text)
            for clip, text in zip(clips, texts, strict=True)
            if text and (clip.captions or clip.tags) and clip.key not in broken
        ]
        self.keys = [clip.key for clip, _ in kept]
        self.texts = [text for _, text in kept]
        self.tags = [list(clip.tags) for clip, _ in kept]
        self.clips = [clip for clip, _ in kept]

    def samples(self, index: int) -> np.ndarray:
        """Read and decode one clip."""
        return sources.read_samples(self.clips[index])

    def find_broken(self) -> dict[str, str]:
        """Decode every clip once; return {key: reason} of those that cannot be used."""
        with ThreadPoolExecutor(DECODERS) as pool:
            reasons = pool.map(self._reason, range(len(self.keys)))
            return {key: reason for key, reason in zip(self.keys, reasons, strict=True) if reason}

    def _reason(self, index: int) -> str:
        try:
            self.samples(index)
        except audio.AudioError as error:
            return error.reason
        return ""


class ShardClips:
    """Clips of a dataset of shards, those and the captions that a selection leaves."""

    def __init__(self, index: shards.Index, selection: SelectionConfig) -> None:
        self.index = index
        chosen, tags = select(index, selection), index.tags()
        self.rows = [clip.row for clip in chosen]
        self.keys = [index.keys[row] for row in self.rows]
        self.texts = [clip.texts for clip in chosen]
        self.tags = [tags[row] for row in self.rows]

    def samples(self, index: int) -> np.ndarray:
        """Read and decode one clip."""
        return audio.decode(self.index.flac(self.rows[index]))


def fingerprint(clips: Clips) -> str:
    """Return a hash of what is trained on: keys, captions and tags, but not where the audio lies."""
    digest = hashlib.sha256()
    for row in zip(clips.keys, clips.texts, clips.tags, strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def open_shards(data: str, selection: SelectionConfig) -> ShardClips:
    """Open a dataset of shards for training. Raises InputError when it or an overlay is not there or empty."""
    remedy = "give the --out of a finished `python -m pipeline caption`"
    if not data:
        raise InputError("--data", data, remedy)
    try:
        index = shards.Index(data)
    except FileNotFoundError:
        raise InputError("--data", data, f"no finished dataset of shards there; {remedy}") from None
    clips = ShardClips(index, selection)
    if not clips.keys:
        raise InputError("--data", data, f"{len(index)} clips, none with a caption to train on")
    return clips


class Batch(NamedTuple):
    """Padded clips of one step on one rank."""

    keys: list[str]
    waveform: Tensor  # (B, T) int16
    num_samples: Tensor  # (B,) true lengths
    texts: list[str]  # one caption each
    tags: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which clips make up which step."""

    num_clips: int
    batch_size: int  # global, over all ranks
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the rest of the permutation waits for another epoch's."""
        return self.num_clips // self.batch_size

    def step(self, step: int) -> tuple[int, np.ndarray]:
        """Return the epoch of a step and the clips (batch_size,) of its global batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return epoch, _permutation(self.seed, epoch, self.num_clips)[position * self.batch_size :][: self.batch_size]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_clips: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_clips)


class Loader:
    """Iterate over this rank's share of the steps, decoding ahead in threads."""

    def __init__(self, clips: Clips, order: Order, num_samples: int, rank: int, world_size: int) -> None:
        self.clips, self.order, self.num_samples = clips, order, num_samples
        self.rank, self.world_size = rank, world_size

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield one batch per step from `first_step` up to `last_step`, exclusive."""
        with ThreadPoolExecutor(DECODERS) as pool:
            pending = (
                [pool.submit(self._clip, *clip) for clip in self._share(s)] for s in range(first_step, last_step)
            )
            ahead = list(islice(pending, BATCHES_AHEAD))
            while ahead:
                rows = [future.result() for future in ahead.pop(0)]
                ahead.extend(islice(pending, 1))
                yield self._collate(rows)

    def _share(self, step: int) -> list[tuple[int, int]]:
        epoch, indices = self.order.step(step)
        return [(epoch, int(i)) for i in indices[self.rank :: self.world_size]]

    def _clip(self, epoch: int, index: int) -> tuple[int, np.ndarray, str]:
        rng = np.random.default_rng([self.order.seed, epoch, index])
        try:
            samples = self.clips.samples(index)
        except audio.AudioError as error:  # all were good before the run: skipping one would make ranks unequal
            why = f"is now {error.reason} ({error.detail})"
            raise JobError(f"clip {self.clips.keys[index]} was good and {why}; mend it, the run continues") from error
        start = int(rng.integers(max(0, len(samples) - self.num_samples) + 1))
        texts = self.clips.texts[index]
        return index, samples[start : start + self.num_samples], texts[rng.integers(len(texts))]

    def _collate(self, rows: Sequence[tuple[int, np.ndarray, str]]) -> Batch:
        return Batch(
            keys=[self.clips.keys[index] for index, _, _ in rows],
            waveform=torch.from_numpy(np.stack([audio.fit(samples, self.num_samples) for _, samples, _ in rows])),
            num_samples=torch.tensor([len(samples) for _, samples, _ in rows]),
            texts=[text for _, _, text in rows],
            tags=[self.clips.tags[index] for index, _, _ in rows],
        )
