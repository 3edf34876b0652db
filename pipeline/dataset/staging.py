"""The audio of a shard on its way from the task that reads to the task that writes, around the actor that captions.

    <data>/attempts/00000-<id>.audio    FLAC of the clips that may be written, one after the other

Every attempt at reading has a file of its own. The task that writes removes it once the shard is committed; what a dead
task leaves is removed when the job goes on, or with the folder when the dataset is finished (pipeline/dataset/commit.py).
"""

import uuid
from collections.abc import Collection, Iterable

from pipeline import storage
from pipeline.dataset import answers, commit

SUFFIX = ".audio"


def write(data: str, shard: int, flacs: Iterable[bytes]) -> str:
    """Write the audio of a shard as it comes, and return its URI."""
    uri = storage.join(data, commit.FOLDER, f"{shard:05d}-{uuid.uuid4().hex}{SUFFIX}")
    storage.write_temporary(uri, flacs)
    return uri


def read(uri: str) -> memoryview:
    """Read the audio of a shard; clips are slices of it, without a copy."""
    return memoryview(storage.read(uri))


def clean_up(data: str, committed: Collection[int]) -> None:
    """Remove audio and answers of shards that are committed: of tasks that died, or that ended after another writer."""
    folder = storage.join(data, commit.FOLDER)
    for name in storage.list_names(folder):
        shard, _, rest = name.partition("-")
        if rest.endswith((SUFFIX, answers.SUFFIX)) and int(shard) in committed:
            remove(storage.join(folder, name))


def remove(uri: str) -> None:
    """Remove the audio of a shard that is committed."""
    storage.remove(uri)
