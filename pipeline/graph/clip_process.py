"""Read clips in a process of its own: one that kills the decoder ends that process, and not the worker."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Self

from pipeline import audio, sources, storage

STOPPED = (signal.SIGKILL, signal.SIGTERM)  # by others, most often for lack of memory


class ClipProcess:
    """Reads one clip at a time as `sources.read_canonical` does; started with the first, and again after each death."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection:
            self.connection.close()  # which ends it

    def read(self, where: sources.AudioLocation) -> sources.CanonicalAudio:
        """Read and decode a clip for a shard.

        Raises:
            AudioError: as `sources.read_canonical` does; `crashed` when the decoder died.
            StoreFault: as `sources.read_canonical` does, or when the process was killed from outside.
        """
        with self.lock:  # what dies dies of this clip
            connection = self._connect()
            try:
                connection.send(where)
                found = connection.recv()
            except (EOFError, ConnectionError):
                found = self._death(where)
        if isinstance(found, Exception):
            raise found
        result: sources.CanonicalAudio = found
        return result

    def _connect(self) -> Connection:
        if self.connection is None:
            spawn = multiprocessing.get_context("spawn")  # a fork would inherit the locks of threads
            self.connection, theirs = spawn.Pipe()
            self.process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
        return self.connection

    def _death(self, where: sources.AudioLocation) -> Exception:
        assert self.process and self.connection
        self.process.join()
        code = self.process.exitcode or 0
        self.connection.close()
        self.process = self.connection = None
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if -code in STOPPED:
            message = f"{where.uri} cannot be used now (its process got {name}; memory may be short)"
            return storage.StoreFault(f"{message}; nothing of it is kept: run the same command again")
        return audio.AudioError("crashed", f"decoding ended its process by {name}")


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    while True:
        try:
            where = connection.recv()
        except EOFError:
            return
        try:
            connection.send(sources.read_canonical(where))
        except (audio.AudioError, OSError) as error:
            connection.send(error)
