"""The audio of a shard on its way from the task that reads to the task that writes, around the actor that captions.

    <data>/attempts/00000-<id>.audio    FLAC of the clips that may be written, one after the other
    <data>/attempts/00000-<id>.begun    an attempt at reading that goes on, or whose process died

Every attempt at reading has a file of its own. The task that writes removes it once the shard is committed; what a dead
task leaves is removed when the job goes on, or with the folder when the dataset is finished (pipeline/dataset/commit.py).
"""

import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from pipeline import storage
from pipeline.dataset import answers, commit

SUFFIX = ".audio"
MARK_SUFFIX = ".begun"


@contextmanager
def attempt(data: str, shard: int) -> Iterator[int]:
    """Mark that the reading of a shard has begun, until it ends; gives how many attempts before it have died or go on."""
    deaths = len(_marks(data, shard))
    mark = storage.join(data, commit.FOLDER, f"{shard:05d}-{uuid.uuid4().hex}{MARK_SUFFIX}")
    storage.write_temporary(mark, [b""])
    try:
        yield deaths
    finally:
        storage.remove(mark)


def forget_attempts(data: str, shard: int) -> None:
    """Remove the marks of a shard, so that its attempts count from 0 again."""
    for mark in _marks(data, shard):
        storage.remove(mark)


def _marks(data: str, shard: int) -> list[str]:
    folder, start = storage.join(data, commit.FOLDER), f"{shard:05d}-"
    names = [name for name in storage.names(folder) if name.startswith(start) and name.endswith(MARK_SUFFIX)]
    return [storage.join(folder, name) for name in names]


def write(data: str, shard: int, flacs: Iterable[bytes]) -> str:
    """Write the audio of a shard as it comes, and return its URI."""
    uri = storage.join(data, commit.FOLDER, f"{shard:05d}-{uuid.uuid4().hex}{SUFFIX}")
    storage.write_temporary(uri, flacs)
    return uri


def read(uri: str) -> memoryview:
    """Read the audio of a shard; clips are slices of it, without a copy."""
    return memoryview(storage.read(uri))


def clean_up(data: str, committed: Collection[int]) -> None:
    """Remove what attempts at committed shards left: of tasks that died, or that ended after another writer."""
    folder = storage.join(data, commit.FOLDER)
    for name in storage.list_names(folder):
        shard, _, rest = name.partition("-")
        if rest.endswith((SUFFIX, MARK_SUFFIX, answers.SUFFIX)) and int(shard) in committed:
            remove(storage.join(folder, name))


def remove(uri: str) -> None:
    """Remove the audio of a shard that is committed."""
    storage.remove(uri)
