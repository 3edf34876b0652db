"""The ledgers of a dataset, one after the other; some are read ahead, and none is kept."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import shards
from pipeline.storage.read_ahead import ahead

READERS = 8  # ledgers read at a time


def read(data: str, numbers: Iterable[int]) -> Iterator[pa.Table]:
    """Yield the ledgers of some shards in their order."""
    return ahead(partial(_ledger, data), numbers, READERS)


def written(data: str, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number of each shard and the rows of its written clips, with a column `shard`."""
    for number, ledger in zip(numbers, read(data, numbers), strict=True):
        rows = ledger.filter(pc.equal(ledger["status"], "written"))
        yield number, rows.append_column("shard", pa.array([number] * len(rows), pa.int32()))


def _ledger(data: str, shard: int) -> pa.Table:
    return storage.read_table(storage.join(data, shards.ledger_name(shard)))
