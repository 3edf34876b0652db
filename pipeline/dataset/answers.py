"""Answers that were received for the clips of a shard, kept until the shard is committed: none is asked for twice.

    <data>/attempts/00000-answers/<name>.json    one answer each

The task that writes removes them once the shard is committed; what a dead task leaves is removed as staged audio is.
"""

from typing import Any

from pipeline import storage
from pipeline.dataset import commit

SUFFIX = "answers"  # of a shard's folder, after its number


class Answers:
    """The answers of one shard."""

    def __init__(self, data: str, shard: int) -> None:
        self.folder = _folder(data, shard)

    def names(self) -> set[str]:
        """Return the names of the answers that are kept."""
        return {name.removesuffix(".json") for name in storage.list_names(self.folder)}

    def read(self, name: str) -> Any:
        """Read an answer."""
        return storage.read_json(self._uri(name))

    def keep(self, name: str, answer: object) -> None:
        """Keep an answer: JSON."""
        storage.publish_json(self._uri(name), answer)

    def _uri(self, name: str) -> str:
        return storage.join(self.folder, f"{name}.json")


def remove(data: str, shard: int) -> None:
    """Remove the answers of a shard that is committed."""
    storage.remove(_folder(data, shard))


def _folder(data: str, shard: int) -> str:
    return storage.join(data, commit.FOLDER, f"{shard:05d}-{SUFFIX}")
