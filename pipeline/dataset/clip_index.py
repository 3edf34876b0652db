"""Random access to the written clips of a dataset."""

import json
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import shards


class ClipIndex:
    """Every written clip of a dataset, found through the ledgers.

    Raises:
        FileNotFoundError: when `data` is no finished dataset of shards.
    """

    def __init__(self, data: str) -> None:
        self.data = storage.resolve(data)
        ledgers = []
        for shard in shards.sizes(self.data):
            ledger = storage.read_table(storage.join(self.data, shards.ledger_name(shard)))
            ledgers.append(ledger.append_column("shard", pa.array([shard] * len(ledger), pa.int32())))
        self.shards = [int(ledger["shard"][0].as_py()) for ledger in ledgers if len(ledger)]
        self.ledger = pa.concat_tables(ledgers)
        self.written = self.ledger.filter(pc.equal(self.ledger["status"], "written")).combine_chunks()
        self.keys: list[str] = self.written["key"].to_pylist()

    def __len__(self) -> int:
        return len(self.keys)

    def texts(self) -> list[list[str]]:
        """Return the captions of every clip, in index order."""
        texts: list[list[str]] = self.written["text"].to_pylist()
        return texts

    def tags(self) -> list[list[str]]:
        """Return the tags of every clip, in index order."""
        tags: list[list[str]] = self.written["tags"].to_pylist()
        return tags

    def flac(self, index: int) -> bytes:
        """Read the FLAC bytes of one clip."""
        return self._member(index, "flac")

    def meta(self, index: int) -> shards.SampleMeta:
        """Read the JSON of one clip."""
        meta: shards.SampleMeta = json.loads(self._member(index, "json"))
        return meta

    def _member(self, index: int, kind: Literal["flac", "json"]) -> bytes:
        shard, offset, size = (self.written[n][index].as_py() for n in ("shard", f"{kind}_offset", f"{kind}_size"))
        return storage.read(storage.join(self.data, shards.tar_name(shard)), offset, size)
