"""Clips -> a plan: which clip goes into which shard, fixed once from the listing alone, and hashed.

`plan.parquet` has one row group per shard, so that a worker reads just its own. `plan.json` carries the hash and counts
and is published last. The hash covers everything that decides what a shard holds, but not where the audio lies. Clips that
the leakage firewall excludes stay in the plan, with the evaluation set that they belong to.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import cli, fingerprints, preview, shards, sources, storage
from pipeline.capacity import CapacityConfig
from pipeline.clip import Clip
from pipeline.firewall import Firewall, FirewallConfig
from pipeline.progress import Progress

log = logging.getLogger("pipeline.plan")
PLAN_FILE, TABLE_FILE = "plan.json", "plan.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("fault", pa.string()),
        ("excluded", pa.string()),  # the evaluation set that a clip is of
        ("source_id", pa.string()),
        ("origin", pa.string()),  # `youtube:<id>` or `freesound:<id>`
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("mids", pa.list_(pa.string())),
    ]
)
TOLD = ("source", "folds", "clips_per_shard", "lists", "allow", "fingerprints")  # where two plans may differ
HASHED = ("key", "source_id", "origin", "fault", "start_s", "end_s", "tags", "mids")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Fix which clip goes into which shard, and look at it before any model runs."""

    source: str = ""
    """Where the clips are: a CSV, a folder, tars or Parquet files."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    out: str = ""
    """Folder or URI of the dataset; `caption` with the same --out fills the plan."""
    clips_per_shard: int = 512
    """Clips in each tar but the last; 512 clips of 10 s are about 250 MB."""
    dry_run: bool = False
    """Print the plan without writing it."""
    firewall: FirewallConfig = field(default_factory=FirewallConfig)
    """The leakage firewall."""
    estimate: bool = False
    """Tell nodes, hours, storage, requests and cost, for the plan and for --capacity.clips; nothing is written."""
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    """What to estimate for."""


class Draft(NamedTuple):
    """A plan that is not published yet."""

    plan: dict[str, Any]  # as in plan.json
    table: bytes  # plan.parquet; empty when the published one stands


def run(config: PlanConfig) -> None:
    """Write the plan and print what it holds, or what it takes to fill it."""
    if config.estimate:
        print(_estimate(config))
        return
    if not config.out and not config.dry_run:
        raise cli.InputError("--out", config.out, "give the folder or URI of the dataset, or --dry-run")
    out = cli.writable(config.out) if config.out else ""
    drawn = draft(config.out, config.source, config.folds, config.clips_per_shard, config.firewall)
    print(preview.describe(drawn.plan))
    if config.dry_run:
        return
    try:
        publish(out, drawn)
    except OSError as error:
        raise cli.InputError("--out", config.out, f"cannot be written: {error}") from None


def draft(out: str, source: str, folds: tuple[str, ...], clips_per_shard: int, firewall: FirewallConfig) -> Draft:
    """Return the plan of a source, from the published one where nothing has changed since; writes nothing.

    Raises:
        InputError: when the source cannot be listed, two clips share a key, or `out` has another plan.
    """
    if clips_per_shard < 1:
        raise cli.InputError("--clips-per-shard", clips_per_shard, "use 1 or more")
    if not source:
        raise cli.InputError("--source", source, sources.WANTED)
    wall = Firewall(firewall, storage.resolve(source))
    made_from = storage.plain(
        {
            "source": storage.resolve(source),
            "folds": folds,
            "stamp": sources.stamp(source),
            "lists": [storage.stamps([str(one["list"])]) for one in wall.lists],
            "allow": firewall.allow,
            "fingerprints": [fingerprints.revision(uri) for uri in firewall.fingerprints],
            "clips_per_shard": clips_per_shard,
        }
    )
    held = read(storage.resolve(out)) if out else None
    if held and held["made_from"] == made_from:
        return Draft(held, b"")
    clips = sources.list_clips(source, folds)
    drawn = _draw(clips, made_from, wall)
    if held and held["hash"] != drawn.plan["hash"]:
        was = held["made_from"]
        told = [
            f"{name} was {was.get(name)}, now {made_from[name]}" for name in TOLD if was.get(name) != made_from[name]
        ]
        remedy = "; ".join(told) or f"the source lists other clips than the {held['num_clips']} of its plan"
        raise cli.InputError("--out", out, f"is planned otherwise: {remedy}; choose another folder or delete it")
    return Draft({**drawn.plan, "retries": held["retries"]}, drawn.table) if held else drawn


def publish(data: str, drawn: Draft) -> dict[str, Any]:
    """Publish a draft and return its plan.json; the same plan again only renews where the audio lies."""
    if drawn.table:
        storage.publish(storage.join(data, TABLE_FILE), drawn.table)
        storage.publish_json(storage.join(data, PLAN_FILE), drawn.plan)
    plan = drawn.plan
    log.info("plan: %d clips in %d shards, hash %s", plan["num_clips"], plan["num_shards"], plan["hash"][:12])
    return plan


def read(data: str) -> dict[str, Any] | None:
    """Return the plan.json of a dataset, or None when it has none."""
    marker = storage.join(data, PLAN_FILE)
    plan: dict[str, Any] | None = storage.read_json(marker) if storage.exists(marker) else None
    return plan


def num_shards(plan: dict[str, Any]) -> int:
    """Return the shards of a plan, those of retries included."""
    return int(plan["num_shards"] + sum(retry["num_shards"] for retry in plan["retries"]))


def missing(data: str, plan: dict[str, Any]) -> list[int]:
    """Return the shards of a plan that are not committed."""
    return sorted(set(range(num_shards(plan))) - set(shards.committed(data)))


def part_of(plan: dict[str, Any], shard: int) -> dict[str, Any]:
    """Return the part of a plan that a shard is of, itself or a retry: `hash`, `first_shard`, `num_clips`, `table`."""
    for retry in plan["retries"]:
        if retry["first_shard"] <= shard < retry["first_shard"] + retry["num_shards"]:
            return dict(retry)
    return {**plan, "first_shard": 0, "table": TABLE_FILE}


def clips_in(plan: dict[str, Any], numbers: Iterable[int]) -> int:
    """Return how many clips are planned for some shards."""
    count = 0
    for shard in numbers:
        part = part_of(plan, shard)
        count += min(
            plan["clips_per_shard"], part["num_clips"] - (shard - part["first_shard"]) * plan["clips_per_shard"]
        )
    return int(count)


def read_shard(data: str, plan: dict[str, Any], shard: int) -> list[dict[str, Any]]:
    """Read the planned clips of one shard, as rows of SCHEMA."""
    part = part_of(plan, shard)
    with storage.open_parquet(storage.join(data, part["table"])) as file:
        rows: list[dict[str, Any]] = file.read_row_group(shard - part["first_shard"]).to_pylist()
    return rows


def extend(data: str, plan: dict[str, Any], rows: list[dict[str, Any]], reasons: dict[str, int]) -> dict[str, Any]:
    """Publish new shards for clips that are tried again; return the new plan.json."""
    number = len(plan["retries"]) + 1
    size = plan["clips_per_shard"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, row_group_size=size)
    retry = {
        "reasons": reasons,
        "first_shard": num_shards(plan),
        "num_shards": -(-len(rows) // size),
        "num_clips": len(rows),
        "hash": hashlib.sha256(json.dumps([plan["hash"], number, [row["key"] for row in rows]]).encode()).hexdigest(),
        "table": f"plan-{number}.parquet",
    }
    storage.publish(storage.join(data, retry["table"]), sink.getvalue().to_pybytes())
    plan = {**plan, "retries": [*plan["retries"], retry]}
    storage.publish_json(storage.join(data, PLAN_FILE), plan)
    return plan


def _estimate(config: PlanConfig) -> str:
    rates = config.capacity.check()
    sizes = list(config.capacity.clips)
    if config.source or not sizes:
        drawn = draft(config.out, config.source, config.folds, config.clips_per_shard, config.firewall).plan
        sizes.insert(0, preview.kept(drawn))
    return preview.estimates(sizes, config.clips_per_shard, rates, config.capacity)


def _draw(clips: Iterable[Clip], made_from: dict[str, Any], wall: Firewall) -> Draft:
    """Plan clips as they are listed: what is held is the compressed table and eight bytes for each key."""
    clips_per_shard, source = made_from["clips_per_shard"], made_from["source"]
    digest = hashlib.sha256(json.dumps([clips_per_shard, made_from["fingerprints"]]).encode())
    tags: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    key_hashes: list[np.ndarray] = []
    seconds = 0.0
    sink = pa.BufferOutputStream()
    listing, progress = iter(clips), Progress("plan", "clips")
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(listing, clips_per_shard)):
            verdicts = [wall.verdict(clip) for clip in chunk]
            columns = {name: [getattr(clip, name) for clip in chunk] for name in SCHEMA.names if name != "excluded"}
            writer.write_table(pa.table({**columns, "excluded": verdicts}, schema=SCHEMA))
            digest.update(json.dumps([[columns[name] for name in HASHED], verdicts]).encode())
            key_hashes.append(np.fromiter(map(hash, columns["key"]), np.int64, len(chunk)))
            tags.update(tag for clip in chunk for tag in clip.tags)
            excluded.update(filter(None, verdicts))
            seconds += sum(clip.end_s - clip.start_s for clip in chunk)
            counts.update(
                clips=len(chunk),
                shards=1,
                untagged=sum(not c.tags for c in chunk),
                faults=sum(bool(c.fault) for c in chunk),
            )
            progress.add(len(chunk))
    if not counts["clips"]:
        raise cli.InputError("--source", source, sources.no_clip(made_from["folds"]))
    _check_unique(np.concatenate(key_hashes), sink.getvalue(), source)
    plan = {
        "hash": digest.hexdigest(),
        "num_clips": counts["clips"],
        "num_shards": counts["shards"],
        "clips_per_shard": clips_per_shard,
        "duration_s": round(seconds, 3),
        "num_without_tags": counts["untagged"],
        "num_faults": counts["faults"],
        "firewall": {"excluded": dict(excluded.most_common()), "lists": wall.lists, "unchecked": wall.unchecked},
        "tags": dict(tags.most_common()),
        "made_from": made_from,
        "retries": [],
    }
    return Draft(plan, sink.getvalue().to_pybytes())


def _check_unique(key_hashes: np.ndarray, table: pa.Buffer, source: str) -> None:
    """Raise InputError for clips that share a key; only when hashes meet are the keys themselves looked at."""
    key_hashes.sort()
    if not (key_hashes[1:] == key_hashes[:-1]).any():
        return
    listed = pq.read_table(pa.BufferReader(table), columns=["key", "source_id"])
    tally = pc.value_counts(listed["key"])
    doubled = tally.field("values").filter(pc.greater(tally.field("counts"), 1))
    if len(doubled):
        key = doubled[0].as_py()
        ids = listed.filter(pc.equal(listed["key"], key))["source_id"].to_pylist()
        more = f"; {len(doubled) - 1} more keys are double" if len(doubled) > 1 else ""
        raise cli.InputError("--source", source, sources.same_key(ids[0], ids[1], key) + more)
