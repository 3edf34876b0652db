"""Clips -> a plan: which clip goes into which shard, fixed once from the listing alone, and hashed.

`plan.parquet` has one row group per shard, so that a worker reads just its own. `plan.json` carries the hash and counts
and is published last. The hash covers everything that decides what a shard holds, but not where the audio lies.
"""

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import cli, sources, storage

log = logging.getLogger("pipeline.plan")
PLAN_FILE, TABLE_FILE = "plan.json", "plan.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("source_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("mids", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Fix which clip goes into which shard, and look at it before any model runs."""

    source: str = ""
    """CSV that lists the clips: AudioSet segments, or any table with a file column."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    out: str = ""
    """Folder or URI of the dataset; `caption` with the same --out fills the plan."""
    clips_per_shard: int = 512
    """Clips in each tar but the last; 512 clips of 10 s are about 250 MB."""


def run(config: PlanConfig) -> None:
    """Write the plan and print what it holds."""
    clips = sources.read_clips(config.source, config.folds)
    if not config.out:
        raise cli.InputError("--out", config.out, "give the folder or URI of the dataset")
    plan = write(storage.resolve(config.out), clips, config.clips_per_shard)
    for name, count in plan["tags"].items():
        print(f"{count:>8}  {name}")
    print(f"{plan['num_clips']} clips, {plan['num_shards']} shards, {plan['num_without_tags']} clips without tags")


def write(data: str, clips: Sequence[sources.Clip], clips_per_shard: int) -> dict[str, Any]:
    """Publish the plan of a dataset. The same plan again only renews where the audio lies, should it have moved.

    Returns:
        plan.json as a dict.

    Raises:
        InputError: when the dataset was planned from other clips.
    """
    plan = check(data, clips, clips_per_shard)
    table = pa.Table.from_pylist([dataclasses.asdict(clip) for clip in clips], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=clips_per_shard)
    storage.publish(storage.join(data, TABLE_FILE), sink.getvalue().to_pybytes())
    storage.publish_json(storage.join(data, PLAN_FILE), plan)
    log.info("plan: %d clips in %d shards, hash %s", len(clips), plan["num_shards"], plan["hash"][:12])
    return plan


def check(data: str, clips: Sequence[sources.Clip], clips_per_shard: int) -> dict[str, Any]:
    """Return what `write` would publish, or raise its InputError; writes nothing."""
    if clips_per_shard < 1:
        raise cli.InputError("--clips-per-shard", clips_per_shard, "use 1 or more")
    plan = describe(clips, clips_per_shard)
    marker = storage.join(data, PLAN_FILE)
    held = storage.read_json(marker) if data and storage.exists(marker) else plan
    if held["hash"] != plan["hash"]:
        remedy = f"its plan is of {held['num_clips']} other clips; choose another folder or delete it"
        raise cli.InputError("--out", data, remedy)
    return plan


def describe(clips: Sequence[sources.Clip], clips_per_shard: int) -> dict[str, Any]:
    """Return the hash and the counts of a plan."""
    tags = Counter(tag for clip in clips for tag in clip.tags)
    return {
        "hash": _hash(clips, clips_per_shard),
        "num_clips": len(clips),
        "num_shards": -(-len(clips) // clips_per_shard),
        "clips_per_shard": clips_per_shard,
        "num_without_tags": sum(not clip.tags for clip in clips),
        "tags": dict(tags.most_common()),
    }


def read_shard(data: str, shard: int) -> list[dict[str, Any]]:
    """Read the planned clips of one shard, as rows of SCHEMA."""
    filesystem, path = storage.locate(storage.join(data, TABLE_FILE))
    with pq.ParquetFile(filesystem.open_input_file(path)) as file:
        rows: list[dict[str, Any]] = file.read_row_group(shard).to_pylist()
    return rows


def _hash(clips: Iterable[sources.Clip], clips_per_shard: int) -> str:
    digest = hashlib.sha256(str(clips_per_shard).encode())
    for clip in clips:
        digest.update(json.dumps([clip.key, clip.source_id, clip.start_s, clip.end_s, clip.tags, clip.mids]).encode())
    return digest.hexdigest()
