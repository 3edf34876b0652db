"""The steps of an order -> batches of this rank, read ahead; the number of reading processes does not change them."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.phrases import Phrase
from pipeline.errors import InputError, JobError
from train.data import reading
from train.data.order import Order, Step
from train.data.processes import LoaderProcess, Wait
from train.data.reading import CacheConfig, ClipRequest, Filled, Loaded, Location, Rows

log = logging.getLogger(__name__)
STEPS_READING = 3  # steps whose clips are being read and decoded
STEPS_READY = 2  # batches that wait for the training thread


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Which processes read and decode the clips. It changes the speed, never the batches."""

    processes: int = 0
    """Processes that read and decode beside each training worker; 0 does it in the worker, in threads."""
    ingest: Literal["local", "ray"] = "local"
    """ray decodes in tasks on any node with free CPUs, for GPU nodes short of cores; local on the worker's machine."""
    cache_dir: str = ""
    """Folder on each machine's disk that keeps the bytes read of remote shards; empty keeps nothing on disk."""
    cache_gb: float = 100.0
    """Maximum size of that folder, in 1e9 bytes."""
    max_bad_fraction: float = 0.01
    """Stop when more than this share of the clips cannot be read; fewer are skipped, counted and named."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be."""
        if self.processes < 0:
            raise InputError("--loader.processes", self.processes, "use 0 or more")
        if not self.cache_gb > 0:
            raise InputError("--loader.cache-gb", self.cache_gb, "use a number above 0")
        if not 0 <= self.max_bad_fraction <= 1:
            raise InputError("--loader.max-bad-fraction", self.max_bad_fraction, "use a share from 0 to 1")


class Clips(Protocol):
    """Captioned clips by number."""

    keys: Sequence[str]
    texts: Sequence[list[str]]
    tags: Sequence[list[str]]
    phrases: Sequence[list[Phrase] | None]  # what sounds when; None where that is not known

    def location(self, index: int) -> Location:
        """Return where the audio of a clip is stored."""
        ...


class Batch(NamedTuple):
    """Padded clips of one step on one rank."""

    keys: list[str]
    waveform: Tensor  # (B, T) int16
    num_samples: Tensor  # (B,) true lengths
    texts: list[str]  # one caption each
    tags: list[list[str]]
    indices: list[int]  # numbers of the clips
    starts: list[int]  # samples of each clip that were cropped before its row
    valid: Tensor  # (B,) bool; False for a clip that cannot be read: it is silent, and losses leave it out
    inputs: tuple[Tensor, ...] = ()  # what the stage's `Collate` made of it


Collate = Callable[
    [Batch, Step], tuple[Tensor, ...]
]  # what else a step needs, such as tokens; runs beside the training
Load = Callable[[list[ClipRequest], int, CacheConfig], "Future[Loaded]"]
Reader = Callable[[list[ClipRequest], Rows], Wait]  # begins to fill rows; what it returns waits for that


class _Reading(NamedTuple):
    """A step whose clips are being read."""

    step: int
    indices: list[int]  # of its clips
    texts: list[str]
    waveform: Tensor
    waits: list[Wait]  # the i-th of n is for every n-th row from i


class Loader:
    """Iterate over this rank's share of the steps."""

    def __init__(
        self,
        clips: Clips,
        order: Order,
        num_samples: int,
        rank: int = 0,
        world_size: int = 1,
        config: LoaderConfig | None = None,
        remote: Load | None = None,
        pin: bool = False,
        collate: Collate | None = None,
    ) -> None:
        """Take the clips and their order.

        Args:
            clips: all of them, the same on every rank.
            order: which clips make up which step.
            num_samples: length of every row, T.
            rank: of this process.
            world_size: number of ranks; it need not divide the batch.
            config: which processes read.
            remote: reads on other nodes, for `--loader.ingest ray`.
            pin: put batches in page-locked memory, from which a GPU copies while it computes.
            collate: makes `inputs` of each batch, in a thread of the loader.
        """
        self.clips, self.order, self.num_samples = clips, order, num_samples
        self.rank, self.world_size, self.pin = rank, world_size, pin
        self.config, self.remote, self.collate = config or LoaderConfig(), remote, collate
        self.cache = CacheConfig(self.config.cache_dir, round(self.config.cache_gb * 1e9))
        self.skipped: dict[str, str] = {}  # {key: reason} of the clips that could not be read

    def batches(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield one batch per step from `first_step` up to `last_step`, exclusive.

        Raises:
            JobError: when too many clips cannot be read.
        """
        with ExitStack() as stack:
            readers = self._readers(stack)
            collator = ThreadPoolExecutor(1)
            stack.callback(collator.shutdown, wait=True, cancel_futures=True)
            collated = self._collated(readers, first_step, last_step)  # it runs in the collator's thread alone
            given: list[Tensor] = []  # clips of the batches so far, until the collator lets go of them

            def advance() -> tuple[Batch, dict[str, str]]:
                del given[:-1]  # here and not in the training thread: to free 80 MB takes milliseconds
                return next(collated)

            ahead: deque[Future[tuple[Batch, dict[str, str]]]] = deque()
            for step in range(first_step, last_step + STEPS_READY):
                if step < last_step:
                    ahead.append(collator.submit(advance))
                if step >= first_step + STEPS_READY:
                    batch = self._checked(*ahead.popleft().result())
                    given.append(batch.waveform)
                    yield batch

    def _readers(self, stack: ExitStack) -> list[Reader]:
        """Return what reads; each gets the same slots of every step, so that no two read the same range."""
        if self.remote is not None:
            return [self._remote_reader(self.remote)]
        if not self.config.processes:
            thread = ThreadPoolExecutor(1)  # the clips of a step are read in more threads, one step after the other
            stack.callback(thread.shutdown, wait=True, cancel_futures=True)
            return [lambda requests, rows: thread.submit(reading.fill, rows, requests, self.cache).result]
        readers: list[Reader] = []
        share = -(-self.order.batch_size // self.world_size)
        for _ in range(self.config.processes):
            rows = -(-share // self.config.processes)
            process = LoaderProcess(STEPS_READING, rows, self.num_samples, self.cache)
            stack.callback(process.close)
            readers.append(process.request)
        return readers

    def _remote_reader(self, remote: Load) -> Reader:
        def read(requests: list[ClipRequest], rows: Rows) -> Wait:
            future = remote(requests, self.num_samples, self.cache)

            def wait() -> Filled:
                loaded = future.result()
                np.copyto(rows, loaded.waveform)
                return loaded.filled

            return wait

        return read

    def _collated(
        self, readers: Sequence[Reader], first_step: int, last_step: int
    ) -> Iterator[tuple[Batch, dict[str, str]]]:
        """Yield each batch and its faults, while the clips of the next steps are being read."""
        reading_ahead: deque[_Reading] = deque()
        for step in range(first_step, last_step):
            reading_ahead.append(self._request(step, readers))
            if len(reading_ahead) == STEPS_READING:
                yield self._collate(reading_ahead.popleft())
        while reading_ahead:
            yield self._collate(reading_ahead.popleft())

    def _request(self, step: int, readers: Sequence[Reader]) -> _Reading:
        """Request the rows of a step."""
        own = slice(self.rank, None, self.world_size)
        passes, indices = (each[own].tolist() for each in self.order.step(step))
        requests, texts = [], []
        for number, index in zip(passes, indices, strict=True):
            rng = np.random.default_rng([self.order.seed, number, index])
            captions = self.clips.texts[index]
            texts.append(captions[rng.integers(len(captions))])
            requests.append(ClipRequest(self.clips.location(index), rng.random()))
        waveform = torch.empty(len(indices), self.num_samples, dtype=torch.int16, pin_memory=self.pin)
        rows, count = waveform.numpy(), min(len(readers), len(indices))
        waits = [reader(requests[i::count], rows[i::count]) for i, reader in enumerate(readers[:count])]
        return _Reading(step, indices, texts, waveform, waits)

    def _collate(self, read: _Reading) -> tuple[Batch, dict[str, str]]:
        num_samples, faults = torch.empty(len(read.indices), dtype=torch.int64), [""] * len(read.indices)
        starts = [0] * len(read.indices)
        for i, wait in enumerate(read.waits):
            filled = wait()
            num_samples[i :: len(read.waits)] = torch.from_numpy(filled.num_samples)
            starts[i :: len(read.waits)] = filled.starts
            faults[i :: len(read.waits)] = filled.faults
        keys = [self.clips.keys[index] for index in read.indices]
        batch = Batch(
            keys=keys,
            waveform=read.waveform,
            num_samples=self._pinned(num_samples),
            texts=read.texts,
            tags=[self.clips.tags[index] for index in read.indices],
            indices=read.indices,
            starts=starts,
            valid=self._pinned(torch.tensor([not fault for fault in faults])),
        )
        if self.collate is not None:
            made = self.collate(batch, self.order.keyed(read.step, self.rank))
            batch = batch._replace(inputs=tuple(map(self._pinned, made)))
        return batch, {key: fault for key, fault in zip(keys, faults, strict=True) if fault}

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.pin else tensor

    def _checked(self, batch: Batch, faults: dict[str, str]) -> Batch:
        """Note the clips that could not be read; too many of them are an error."""
        for key, fault in faults.items():
            if key not in self.skipped:
                log.warning("skips clip %s: %s", key, fault)
        self.skipped |= faults
        fraction = self.config.max_bad_fraction
        if len(self.skipped) > (max(1, int(fraction * len(self.clips.keys))) if fraction else 0):
            message = f"{len(self.skipped)} of {len(self.clips.keys)} clips cannot be read, such as {faults}"
            raise JobError(f"{message}; mend them and run again, it goes on from the saved state, or allow more with "
                           "--loader.max-bad-fraction")  # fmt: skip
        return batch
