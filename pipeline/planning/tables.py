"""The Parquet tables of a plan: a row for each clip, a row group for each shard.

    <data>/plan/<hash>/00000.parquet   48 shards; <hash> are the first letters of the hash of the plan, or of one retry
    <data>/plan.parquet, plan-1.parquet   every shard of a plan, and of its first retry: datasets of before December 2026

A part of a plan is the plan itself or a retry. plan.json is published after the tables: tables whose hash it does not hold
belong to no plan.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage

FOLDER = "plan"
SHARDS_PER_TABLE = 48  # whoever reads one shard reads the footer too; up to 64 KiB Arrow fetches it in one read
MEMORY_BYTES = 64 * 2**20  # of tables that are not published yet; larger ones wait in a temporary file
READERS = 16  # footers read at a time

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("fault", pa.string()),
        ("cut_start_s", pa.float64()),
        ("cut_end_s", pa.float64()),
        ("note", pa.string()),
        ("excluded", pa.string()),  # the evaluation set that a clip is of
        ("source_id", pa.string()),
        ("origin", pa.string()),  # `youtube:<id>` or `freesound:<id>`
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("mids", pa.list_(pa.string())),
    ]
)


EXTRA = {  # columns of plans that were asked for them
    "events": pa.list_(pa.struct([("label", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])),
    "texts": pa.list_(pa.string()),  # the source's own captions or titles
}
FULL_SCHEMA = pa.schema([*SCHEMA, *EXTRA.items()])


class EventRow(TypedDict):
    """A strong label of a clip; see `pipeline.sources.clip.Event`."""

    label: str
    start_s: float
    end_s: float


class PlanRow(TypedDict):
    """A row of SCHEMA and EXTRA: a planned clip. Tables lack what is not required."""

    key: str
    uri: str
    offset: int
    size: int
    fault: str
    cut_start_s: NotRequired[float]
    cut_end_s: NotRequired[float]
    note: NotRequired[str]
    excluded: str
    source_id: str
    origin: str
    start_s: float
    end_s: float
    tags: list[str]
    mids: list[str]
    events: NotRequired[list[EventRow] | None]
    texts: NotRequired[list[str] | None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Shards that were planned together: those of a plan, or of one retry."""

    hash: str
    """SHA-256 of what the shards hold, hexadecimal."""
    first_shard: int = 0
    """Number of the first shard."""
    num_shards: int
    num_clips: int
    shards_per_table: int | None = SHARDS_PER_TABLE
    """Shards in each table but the last; None where all are in one table."""
    table: str = ""
    """Name of that one table; '' where there are several."""

    def __contains__(self, shard: int) -> bool:
        return self.first_shard <= shard < self.first_shard + self.num_shards


class TableWriter:
    """Makes the tables of a plan shard by shard; one of them is in memory at a time, and nothing is published."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        """Take which columns of EXTRA the rows have."""
        self.num_shards = 0
        self.schema = pa.schema([*SCHEMA, *((name, EXTRA[name]) for name in extra)])
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 it goes when the writer does
        self._ends = [0]  # bytes; of each table in the spool
        self._sink: pa.BufferOutputStream | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add the next shard: the columns of its clips."""
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            # Statistics would double the footer, and nobody searches in a plan.
            self._writer = pq.ParquetWriter(self._sink, self.schema, compression="zstd", write_statistics=False)
        self._writer.write_table(pa.table(columns, schema=self.schema))
        self.num_shards += 1
        if self.num_shards % SHARDS_PER_TABLE == 0:
            self._finish_table()

    def tables(self) -> Iterator[bytes]:
        """Yield the Parquet files in their order, when all shards are added."""
        self._finish_table()
        for start, end in pairwise(self._ends):
            self._spool.seek(start)
            yield self._spool.read(end - start)

    def publish(self, data: str, plan_hash: str) -> None:
        """Publish the tables of a plan, or of a retry, by its hash."""
        for number, table in enumerate(self.tables()):
            storage.publish(storage.join(data, _name(plan_hash, number)), table)

    def _finish_table(self) -> None:
        if self._writer is None or self._sink is None:
            return
        self._writer.close()
        self._spool.seek(self._ends[-1])
        self._spool.write(self._sink.getvalue())
        self._ends.append(self._spool.tell())
        self._writer = self._sink = None


def remove(data: str, plan_hash: str) -> None:
    """Remove the tables of a plan that plan.json does not hold."""
    storage.remove(storage.join(data, FOLDER, _folder(plan_hash)))


def read_shard(data: str, part: Part, shard: int) -> list[PlanRow]:
    """Read the clips of one shard."""
    name, group = _locate(part, shard)
    with storage.open_parquet(storage.join(data, name), pre_buffer=True) as file:
        rows: list[PlanRow] = file.read_row_group(group).to_pylist()
    return rows


def count_clips(data: str, shards: Iterable[tuple[Part, int]]) -> list[int]:
    """Return the number of clips in each of some (part, shard), from the footers of their tables."""
    located = [_locate(part, shard) for part, shard in shards]
    groups = defaultdict(set)
    for name, group in located:
        groups[name].add(group)

    def count(name: str) -> dict[int, int]:
        with storage.open_parquet(storage.join(data, name)) as file:
            return {group: int(file.metadata.row_group(group).num_rows) for group in groups[name]}

    with ThreadPoolExecutor(READERS) as pool:
        counts = dict(zip(groups, pool.map(count, groups), strict=True))
    return [counts[name][group] for name, group in located]


def _locate(part: Part, shard: int) -> tuple[str, int]:
    """Return the name of the table of a shard, and its row group there."""
    group = shard - part.first_shard
    if part.shards_per_table is None:
        return part.table, group
    number, group = divmod(group, part.shards_per_table)
    return _name(part.hash, number), group


def _name(plan_hash: str, number: int) -> str:
    return storage.join(FOLDER, _folder(plan_hash), f"{number:05d}.parquet")


def retry_name(plan_hash: str, number: int) -> str:
    """Return the name of the file that decides which retry, counted from 1, extends a plan: the first that is created."""
    return storage.join(FOLDER, _folder(plan_hash), f"retry-{number:05d}.json")


def _folder(plan_hash: str) -> str:
    return plan_hash[:16]
