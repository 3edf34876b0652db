"""The steps of an order -> batches of this rank, read ahead; the number of reading processes does not change them."""

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError, JobError
from train.data import reading
from train.data.order import Order
from train.data.reading import CacheConfig, ClipRequest, Loaded, Location

log = logging.getLogger(__name__)
STEPS_AHEAD = 4


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
    valid: Tensor  # (B,) bool; False for a clip that cannot be read: it is silent, and losses leave it out


Load = Callable[[list[ClipRequest], int, CacheConfig], "Future[Loaded]"]


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
        """
        self.clips, self.order, self.num_samples = clips, order, num_samples
        self.rank, self.world_size, self.pin = rank, world_size, pin
        self.config, self.remote = config or LoaderConfig(), remote
        self.cache = CacheConfig(self.config.cache_dir, round(self.config.cache_gb * 1e9))
        self.skipped: dict[str, str] = {}  # {key: reason} of the clips that could not be read

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield one batch per step from `first_step` up to `last_step`, exclusive.

        Raises:
            JobError: when too many clips cannot be read.
        """
        with ExitStack() as stack:
            loads = self._loads(stack)
            collator = stack.enter_context(ThreadPoolExecutor(1))
            ahead: deque[Future[tuple[Batch, dict[str, str]]]] = deque()
            for step in range(first_step, last_step):
                ahead.append(collator.submit(self._collate, *self._request(step, loads)))
                if len(ahead) > STEPS_AHEAD:
                    yield self._checked(*ahead.popleft().result())
            while ahead:
                yield self._checked(*ahead.popleft().result())

    def _loads(self, stack: ExitStack) -> list[Load]:
        """Return the loading functions; each gets the same slots of every step, so that no two read the same range."""
        if self.remote is not None:
            return [self.remote]
        pools: list[Executor] = [ThreadPoolExecutor(1)]
        if self.config.processes:
            spawn = multiprocessing.get_context("spawn")  # a fork would copy threads of Ray and of codecs in mid-air
            pools = [ProcessPoolExecutor(1, spawn) for _ in range(self.config.processes)]
        for pool in pools:
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)

        def on(pool: Executor) -> Load:
            return lambda *args: pool.submit(reading.load, *args)

        return [on(pool) for pool in pools]

    def _request(self, step: int, loads: Sequence[Load]) -> tuple[list[int], list[str], list["Future[Loaded]"]]:
        """Request the rows of a step; return its clips, their captions, and the futures of the rows."""
        epoch, clips = self.order.step(step)
        indices = [int(i) for i in clips[self.rank :: self.world_size]]
        requests, texts = [], []
        for index in indices:
            rng = np.random.default_rng([self.order.seed, epoch, index])
            captions = self.clips.texts[index]
            texts.append(captions[rng.integers(len(captions))])
            requests.append(ClipRequest(self.clips.location(index), rng.random()))
        shares = [requests[i :: len(loads)] for i in range(len(loads))]
        loading = [
            load(share, self.num_samples, self.cache) for load, share in zip(loads, shares, strict=True) if share
        ]
        return indices, texts, loading

    def _collate(
        self, indices: Sequence[int], texts: list[str], loading: Sequence["Future[Loaded]"]
    ) -> tuple[Batch, dict[str, str]]:
        waveform = torch.empty(len(indices), self.num_samples, dtype=torch.int16, pin_memory=self.pin)
        num_samples, faults = torch.empty(len(indices), dtype=torch.int64), [""] * len(indices)
        for i, future in enumerate(loading):
            loaded = future.result()
            waveform[i :: len(loading)] = torch.from_numpy(loaded.waveform)
            num_samples[i :: len(loading)] = torch.from_numpy(loaded.num_samples)
            faults[i :: len(loading)] = loaded.faults
        keys = [self.clips.keys[index] for index in indices]
        batch = Batch(
            keys=keys,
            waveform=waveform,
            num_samples=num_samples,
            texts=texts,
            tags=[self.clips.tags[index] for index in indices],
            valid=torch.tensor([not fault for fault in faults]),
        )
        return batch, {key: fault for key, fault in zip(keys, faults, strict=True) if fault}

    def _checked(self, batch: Batch, faults: dict[str, str]) -> Batch:
        """Note the clips that could not be read; too many of them are an error."""
        for key, fault in faults.items():
            if key not in self.skipped:
                log.warning("skips clip %s: %s", key, fault)
        self.skipped |= faults
        if len(self.skipped) > max(1, int(self.config.max_bad_fraction * len(self.clips.keys))):
            message = f"{len(self.skipped)} of {len(self.clips.keys)} clips cannot be read, such as {faults}"
            raise JobError(f"{message}; mend them and run again, it goes on from the saved state, or allow more with "
                           "--loader.max-bad-fraction")  # fmt: skip
        return batch
