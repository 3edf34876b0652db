"""The audio of a shard on its way from the task that reads to the task that writes, around the actor that captions.

    <data>/attempts/00000-<id>.audio    FLAC of the clips that may be written, one after the other

Every attempt at reading has a file of its own. The task that writes removes it once the shard is committed; what a dead
task leaves goes with the folder when the dataset is finished (pipeline/dataset/commit.py).
"""

import uuid
from collections.abc import Sequence

from pipeline import storage
from pipeline.dataset import commit


def write(data: str, shard: int, flacs: Sequence[bytes]) -> str:
    """Write the audio of a shard, and return its URI."""
    uri = storage.join(data, commit.FOLDER, f"{shard:05d}-{uuid.uuid4().hex}.audio")
    storage.write_temporary(uri, flacs)
    return uri


def read(uri: str) -> memoryview:
    """Read the audio of a shard; clips are slices of it, without a copy."""
    return memoryview(storage.read(uri))


def remove(uri: str) -> None:
    """Remove the audio of a shard that is committed."""
    storage.remove(uri)
