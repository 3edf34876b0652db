"""Processes that decode clips straight into memory that they share with the training process.

Only requests, lengths and faults pass through a pipe. The samples lie in a ring of slots that is made once. A slot is free
again when its rows are copied into a batch. The memory has no name: the kernel frees it with the last process that maps it,
however that process ends. A loader process ends when the pipe to its training process closes.

This module imports no torch: see train/data/reading.py. torch's DataLoader would give whole batches to its workers; here a
process gets the same slots of every batch, so that no two processes read the same range of a tar.
"""

import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from pipeline.errors import JobError
from train.data import reading
from train.data.reading import CacheConfig, ClipRequest, Filled, Rows

SECONDS_TO_END = 30.0  # that a process may take for the clips in its hands

Shape = tuple[int, int, int]
Wait = Callable[[], Filled]


class Handle(Protocol):
    """A file descriptor on its way into another process."""

    def detach(self) -> int:
        """Return it."""
        ...


class SharedRows:
    """Rows of samples, (slots, B, T) int16, that a process shares with those that it spawns with them."""

    def __init__(self, shape: Shape, descriptor: int | None = None) -> None:
        """Make the memory, or map the one that a file descriptor stands for."""
        size = 2 * shape[0] * shape[1] * shape[2]
        self.shape, self.descriptor = shape, _memory(size) if descriptor is None else descriptor
        self.slots = np.frombuffer(mmap.mmap(self.descriptor, size), np.int16).reshape(shape)

    def __reduce__(self) -> tuple[Callable[[Shape, Handle], "SharedRows"], tuple[Shape, object]]:
        return _attach, (self.shape, reduction.DupFd(self.descriptor))

    def close(self) -> None:
        """Close the file descriptor; the memory lives while it is mapped."""
        os.close(self.descriptor)


def _memory(size: int) -> int:
    if sys.platform == "linux":  # not bounded by the size of /dev/shm, which is 64 MB in most containers
        descriptor = os.memfd_create("blat-batches", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _attach(shape: Shape, handle: Handle) -> SharedRows:
    return SharedRows(shape, handle.detach())


class LoaderProcess:
    """One process and its slots. At most `slots` requests may wait, and their results are taken in order."""

    def __init__(self, slots: int, rows: int, num_samples: int, cache: CacheConfig) -> None:
        """Start it; a request has at most `rows` clips."""
        spawn = multiprocessing.get_context("spawn")  # a fork would copy threads of Ray and of codecs in mid-air
        self.shared, self.requested = SharedRows((slots, rows, num_samples)), 0
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, self.shared, cache), daemon=True)
        self.process.start()
        theirs.close()
        self.shared.close()

    def request(self, requests: list[ClipRequest], rows: Rows) -> Wait:
        """Request clips; what is returned waits for them and copies them into `rows`.

        Raises:
            JobError: when the process has ended.
        """
        slot = self.requested % len(self.shared.slots)
        self.requested += 1
        try:
            self.connection.send((slot, requests))
        except OSError:
            raise self._ended() from None

        def wait() -> Filled:
            try:
                filled: Filled = self.connection.recv()
            except (EOFError, OSError):
                raise self._ended() from None
            np.copyto(rows, self.shared.slots[slot, : len(rows)])  # without the interpreter lock
            return filled

        return wait

    def _ended(self) -> JobError:
        self.process.join(SECONDS_TO_END)
        code = self.process.exitcode
        why = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return JobError(f"a process that reads clips ended: {why}; a lack of memory may be the cause. "
                        "Run again, it goes on from the saved state, or use fewer --loader.processes")  # fmt: skip

    def close(self) -> None:
        """End the process: after the clips in its hands, since it may be writing to the cache folder."""
        self.connection.close()
        self.process.join(SECONDS_TO_END)
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, shared: SharedRows, cache: CacheConfig) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the training process, which then closes the pipe
    while True:
        try:
            slot, requests = connection.recv()
        except (EOFError, OSError):
            return
        filled = reading.fill(shared.slots[slot, : len(requests)], requests, cache)
        try:
            connection.send(filled)
        except OSError:
            return
