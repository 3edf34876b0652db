"""A listing, cut into shards -> the draft of a plan: its tables, counts and hash. Holds a table of shards and no clips."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import errors, sources
from pipeline.planning import tables as plan_tables
from pipeline.planning.decontamination import Decontamination
from pipeline.planning.tables import TableWriter
from pipeline.progress import Progress
from pipeline.sources.clip import Clip

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
LATER = ("cut_start_s", "cut_end_s", "note")  # hashed where a clip has one: plans of before December 2026 have none
CLIP_FIELDS = {"origin": "recording_id"}  # column -> field of `Clip`, where they differ
HASHED = ("key", "source_id", "origin", "fault", "start_s", "end_s", "tags", "mids")


class PlanDraft(NamedTuple):
    """A plan that is not published yet."""

    plan: dict[str, Any]  # as in plan.json
    tables: TableWriter | None  # None when the published ones stand


def draw(listing: Iterable[list[Clip]], made_from: dict[str, Any], wall: Decontamination) -> tuple[PlanDraft, str]:
    """Plan shards as they are listed, and return what is wrong with their keys, or ''.

    What is held is a table of shards and eight bytes for each key.
    """
    clips_per_shard, source = made_from["clips_per_shard"], made_from["source"]
    digest = hashlib.sha256(json.dumps([clips_per_shard, made_from["fingerprints"]]).encode())
    tags: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    key_hashes: list[np.ndarray] = []
    seconds = 0.0
    tables, progress = TableWriter(SCHEMA), Progress("plan", "clips")
    for chunk in listing:
        verdicts = [wall.verdict(clip) for clip in chunk]
        columns = {
            name: [getattr(clip, CLIP_FIELDS.get(name, name)) for clip in chunk]
            for name in SCHEMA.names
            if name != "excluded"
        }
        tables.add({**columns, "excluded": verdicts})
        hashed = [*HASHED, *(name for name in LATER if any(columns[name]))]
        digest.update(json.dumps([[columns[name] for name in hashed], verdicts]).encode())
        key_hashes.append(np.fromiter(map(hash, columns["key"]), np.int64, len(chunk)))
        tags.update(tag for clip in chunk for tag in clip.tags)
        excluded.update(filter(None, verdicts))
        seconds += sum(max(0.0, clip.end_s - clip.start_s) for clip in chunk)
        counts.update(
            clips=len(chunk),
            untagged=sum(not c.tags for c in chunk),
            faults=sum(bool(c.fault) for c in chunk),
        )
        progress.add(len(chunk))
    if not counts["clips"]:
        raise errors.InputError("--source", source, sources.no_clip(made_from["folds"]))
    plan = {
        "hash": digest.hexdigest(),
        "num_clips": counts["clips"],
        "num_shards": tables.num_shards,
        "shards_per_table": plan_tables.SHARDS_PER_TABLE,
        "clips_per_shard": clips_per_shard,
        "duration_s": round(seconds, 3),
        "num_without_tags": counts["untagged"],
        "num_faults": counts["faults"],
        "firewall": {"excluded": dict(excluded.most_common()), "lists": wall.lists, "unchecked": wall.unchecked},
        "tags": dict(tags.most_common()),
        "made_from": made_from,
        "retries": [],
    }
    return PlanDraft(plan, tables), _same_key(np.concatenate(key_hashes), tables)


def _same_key(key_hashes: np.ndarray, tables: TableWriter) -> str:
    """Return which clips share a key, or ''; only when hashes meet are the keys themselves looked at."""
    key_hashes.sort()
    if not (key_hashes[1:] == key_hashes[:-1]).any():
        return ""
    named = [pq.read_table(pa.BufferReader(table), columns=["key", "source_id", "uri"]) for table in tables.tables()]
    listed = pa.concat_tables(named)
    tally = pc.value_counts(listed["key"])
    doubled = tally.field("values").filter(pc.greater(tally.field("counts"), 1))
    if not len(doubled):
        return ""
    key = doubled[0].as_py()
    same = listed.filter(pc.equal(listed["key"], key)).slice(0, 2).to_pylist()
    one, other = (sources.describe_location(row["source_id"], row["uri"]) for row in same)
    more = f"; {len(doubled) - 1} more keys are double" if len(doubled) > 1 else ""
    return sources.same_key(one, other, key) + more
