"""A store in memory, and writers to it that stop after any of their operations or take turns."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import storage

Files = dict[str, bytes]


class Stopped(BaseException):
    """The process ends here: nothing that it would have done later happens."""


class Steps:
    """Counts operations and ends the process after `left` of them."""

    def __init__(self, left: float = math.inf) -> None:
        self.left, self.taken = left, 0

    def __call__(self) -> None:
        """Come before every operation."""
        if self.taken >= self.left:
            raise Stopped
        self.taken += 1


OPERATIONS = ("publish", "publish_json", "create", "exists", "read", "read_json", "list_names", "move", "remove")


@contextmanager
def stopping(after: int) -> Iterator[Steps]:
    """End this process's work on the real storage before operation `after`, as far as the code under test can tell."""
    steps = Steps(after)

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            steps()
            return operation(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(storage, name, counted(getattr(storage, name)))
        yield steps


class MemoryStore:
    """The operations of `pipeline.storage` that publishing needs, each one step or several.

    On a disk a move is one step, and so is the removal of a folder. In a bucket a move is a copy and a removal, and a
    folder is removed one object after the other.
    """

    join = staticmethod(storage.join)

    def __init__(self, bucket: bool, watch: Callable[[Files], None] = lambda _: None) -> None:
        """Call `watch` with all files after every change."""
        self.bucket, self.watch = bucket, watch
        self.files: Files = {}
        self.step: Callable[[], None] = Steps()

    def publish(self, uri: str, *parts: bytes) -> None:
        self.step()
        self._put(uri, b"".join(parts))

    def create(self, uri: str, data: bytes) -> bool:
        self.step()
        if uri in self.files:
            return False
        self._put(uri, data)
        return True

    def exists(self, uri: str) -> bool:
        self.step()
        return uri in self.files

    def read_json(self, uri: str) -> Any:
        self.step()
        if uri not in self.files:
            raise FileNotFoundError(uri)
        return json.loads(self.files[uri])

    def list_names(self, folder: str) -> list[str]:
        self.step()
        start = f"{folder}/"
        return sorted({uri.removeprefix(start).split("/")[0] for uri in self.files if uri.startswith(start)})

    def move(self, source: str, target: str) -> None:
        self.step()
        if source not in self.files:
            if not self.exists(target):
                raise FileNotFoundError(source)
            return
        self._put(target, self.files[source])
        if self.bucket:
            self.step()
        self._delete(source)

    def remove(self, uri: str) -> None:
        found = [each for each in self.files if each == uri or each.startswith(f"{uri}/")]
        self.step()
        for number, each in enumerate(found):
            if number and self.bucket:
                self.step()
            self._delete(each)

    def _put(self, uri: str, data: bytes) -> None:
        self.files[uri] = data
        self.watch(self.files)

    def _delete(self, uri: str) -> None:
        self.files.pop(uri, None)  # another may have removed it
        self.watch(self.files)


class Turns(threading.Thread):
    """A writer in a thread that takes as many steps as it is given, then waits."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.work, self.left, self.dead = work, 0.0, False
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        self.go.acquire()
        try:
            self.work()
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self.back.release()

    ended = False

    def advance(self, steps: float) -> None:
        """Let it take so many steps; return when it waits again, or has ended."""
        if not self.ended:
            self.left = steps
            self.go.release()
            self.back.acquire()

    def kill(self) -> None:
        """End it where it waits."""
        self.dead = True
        self.advance(0)
        self.join()

    def step(self) -> None:
        """Come before every operation, in its thread."""
        if not self.left and not self.dead:
            self.back.release()
            self.go.acquire()
        if self.dead:
            raise Stopped
        self.left -= 1
