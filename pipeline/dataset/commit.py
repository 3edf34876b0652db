"""Publish the files of a shard as one: exactly one attempt at a shard ever shows, whoever else writes or dies.

    <data>/attempts/00000-<id>/   every file of one attempt, written first
    <data>/attempts/00000.json    names the attempt that won: created once, however many writers try (storage.create)
    <data>/00000.tar, ...         the winner's files, moved to their names; the commit mark goes last

A writer that dies leaves nothing but files under attempts/. If it dies after winning, the next writer publishes its files.
The commit mark is never removed, and a decision made after the mark is void: whoever reads a decision checks for the mark
afterwards.
"""

import json
import uuid
from collections.abc import Mapping, Sequence

from pipeline import storage
from pipeline.dataset.tar import Buffer

FOLDER = "attempts"


def publish(data: str, shard: str, files: Mapping[str, Sequence[Buffer]]) -> None:
    """Publish the files of a shard, unless it is committed: name to the parts of its content, the commit mark last."""
    mark = list(files)[-1]
    attempt = f"{shard}-{uuid.uuid4().hex}"
    for name, content in files.items():
        storage.publish(storage.join(data, FOLDER, attempt, name), *content)
    decision = json.dumps({"attempt": attempt, "files": list(files)}).encode()
    won = storage.create(_decision(data, shard), decision)
    if not storage.exists(storage.join(data, mark)):
        _finish(data, shard)
    elif won:  # after the commit of another writer, whose decision is already removed
        storage.remove(_decision(data, shard))
    storage.remove(storage.join(data, FOLDER, attempt))


def recover(data: str) -> None:
    """Finish the shards whose winning attempt is whole but whose writer died."""
    for name in storage.list_names(storage.join(data, FOLDER)):
        if name.endswith(".json"):
            _finish(data, name.removesuffix(".json"))


def clean_up(data: str) -> None:
    """Remove the files of attempts, once every shard is committed."""
    storage.remove(storage.join(data, FOLDER))


def _finish(data: str, shard: str) -> None:
    """Move the winner's files to their names. Several may do so at once: they move the same files."""
    try:
        decision = storage.read_json(_decision(data, shard))
    except FileNotFoundError:
        return  # another writer has finished it
    mark = decision["files"][-1]
    if not storage.exists(storage.join(data, mark)):
        for name in decision["files"]:
            storage.move(storage.join(data, FOLDER, decision["attempt"], name), storage.join(data, name))
    storage.remove(storage.join(data, FOLDER, decision["attempt"]))
    storage.remove(_decision(data, shard))


def _decision(data: str, shard: str) -> str:
    return storage.join(data, FOLDER, f"{shard}.json")
