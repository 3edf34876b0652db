"""Clips -> a plan: which clip goes into which shard, fixed once from the listing alone, and hashed.

Tables hold the clips (pipeline/planning/tables.py), `plan.json` the hash and counts; it is published last. The hash covers
everything that decides what a shard holds, but not where the audio lies. pipeline/planning/cut.py decides where shards end;
a listing that renews a plan is cut where the plan was, since sizes of files may have changed. Clips of evaluation sets stay
in the plan, with the name of the set.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from pipeline import errors, sources, storage
from pipeline.audio import fingerprint_table
from pipeline.dataset import shards
from pipeline.planning import tables as plan_tables
from pipeline.planning.cut import MAX_SHARD_MB, WEIGHED, cut, cut_as
from pipeline.planning.decontamination import Decontamination, DecontaminationConfig
from pipeline.planning.draft import SCHEMA, PlanDraft, draw
from pipeline.planning.tables import TableWriter
from pipeline.sources.clip import Clip

log = logging.getLogger(__name__)
PLAN_FILE, TABLE_FILE = "plan.json", "plan.parquet"  # one table: datasets of before December 2026
COMPARED_FIELDS = (
    "source",
    "folds",
    "clips_per_shard",
    "max_shard_mb",
    "columns",
    "lists",
    "allow",
    "fingerprints",
)  # where two plans may differ


def draft(
    out: str,
    source: str,
    folds: tuple[str, ...],
    clips_per_shard: int,
    firewall: DecontaminationConfig,
    max_shard_mb: float = MAX_SHARD_MB,
    columns: str = "",
) -> PlanDraft:
    """Return the plan of a source, from the published one where nothing has changed since; writes nothing to `out`.

    Raises:
        InputError: when the source cannot be listed, two clips share a key, or `out` has another plan.
    """
    if clips_per_shard < 1:
        raise errors.InputError("--clips-per-shard", clips_per_shard, "use 1 or more")
    if max_shard_mb < 0:
        raise errors.InputError(
            "--max-shard-mb", max_shard_mb, "use a number above 0, or 0 to bound shards by clips alone"
        )
    if not source:
        raise errors.InputError("--source", source, sources.SOURCE_HINT)
    wall = Decontamination(firewall, storage.resolve(source))
    made_from = storage.plain(
        {
            "source": storage.resolve(source),
            "folds": folds,
            "stamp": sources.stamp(source),
            "lists": [storage.stamps([str(one["list"])]) for one in wall.lists],
            "allow": firewall.allow,
            "fingerprints": [fingerprint_table.revision(uri) for uri in firewall.fingerprints],
            "clips_per_shard": clips_per_shard,
            "max_shard_mb": max_shard_mb,
        }
    )
    made_from |= {"columns": columns} if columns else {}
    held = read(storage.resolve(out)) if out else None
    if held and "max_shard_mb" not in held["made_from"]:
        made_from.pop("max_shard_mb")  # planned by clips alone, before December 2026: it stays so
    if held and held["made_from"] == made_from:
        return PlanDraft(held, None)
    for holds_all in (False, True):  # what gives equal keys is listed once more, see `sources.list_clips`
        stats = sources.ListingStats()
        clips = sources.list_clips(source, folds, column_names=columns, stats=stats, holds_all=holds_all)
        drawn, same_key = draw(_cut(clips, made_from, storage.resolve(out), held), made_from, wall)
        if not same_key:
            break
    if same_key:
        raise errors.InputError("--source", source, same_key)
    drawn.plan["listing"] = {**stats.as_json(), "holds_all": holds_all}
    if held and held["hash"] != drawn.plan["hash"]:
        was = held["made_from"]
        told = [
            f"{name} was {was.get(name)}, now {made_from.get(name)}"
            for name in COMPARED_FIELDS
            if was.get(name) != made_from.get(name)
        ]
        remedy = "; ".join(told) or f"the source lists other clips than the {held['num_clips']} of its plan"
        raise errors.InputError("--out", out, f"is planned otherwise: {remedy}; choose another folder or delete it")
    return PlanDraft({**drawn.plan, "retries": held["retries"]}, drawn.tables) if held else drawn


def publish(data: str, drawn: PlanDraft) -> dict[str, Any]:
    """Publish a draft and return its plan.json; the same plan again only renews where the audio lies.

    Raises:
        InputError: when another plan was published since the draft was made.
    """
    plan, marker = drawn.plan, storage.join(data, PLAN_FILE)
    if drawn.tables:
        drawn.tables.publish(data, plan["hash"])
        if not storage.create(marker, storage.json_bytes(plan)):
            held = storage.read_json(marker)
            if held["hash"] != plan["hash"]:
                plan_tables.remove(data, plan["hash"])
                remedy = (
                    "another job has just planned it otherwise; start again to fill that plan, or use another folder"
                )
                raise errors.InputError("--out", data, remedy)
            plan = {**plan, "retries": held["retries"]}
            storage.publish_json(marker, plan)
    if "listing" in plan:
        log.info("plan: %s", sources.ListingStats.from_json(plan["listing"]).sentence())
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
    """Return the part of a plan that a shard is of, itself or a retry, as pipeline/planning/tables.py takes it."""
    for retry in plan["retries"]:
        if retry["first_shard"] <= shard < retry["first_shard"] + retry["num_shards"]:
            return dict(retry)
    return {**plan, "first_shard": 0, **({} if "shards_per_table" in plan else {"table": TABLE_FILE})}


def clips_in(data: str, plan: dict[str, Any], numbers: Iterable[int]) -> int:
    """Return how many clips are planned for some shards."""
    return sum(plan_tables.count_clips(data, [(part_of(plan, shard), shard) for shard in numbers]))


def read_shard(data: str, plan: dict[str, Any], shard: int) -> list[dict[str, Any]]:
    """Read the planned clips of one shard, as rows of SCHEMA."""
    return plan_tables.read_shard(data, part_of(plan, shard), shard)


def extend(data: str, plan: dict[str, Any], rows: list[dict[str, Any]], reasons: dict[str, int]) -> dict[str, Any]:
    """Publish new shards for clips that are tried again; return the new plan.json."""
    number = len(plan["retries"]) + 1
    bounds = plan["clips_per_shard"], plan["made_from"].get("max_shard_mb")
    again = list(cut(rows, *bounds, itemgetter(*WEIGHED)))
    keys = [[row["key"] for row in shard] for shard in again]
    retry: dict[str, Any] = {
        "reasons": reasons,
        "first_shard": num_shards(plan),
        "num_shards": len(again),
        "num_clips": len(rows),
        "hash": hashlib.sha256(json.dumps([plan["hash"], number, keys]).encode()).hexdigest(),
        "shards_per_table": plan_tables.SHARDS_PER_TABLE,
    }
    tables = TableWriter(SCHEMA)
    for shard in again:
        tables.add({name: [row.get(name) for row in shard] for name in SCHEMA.names})
    tables.publish(data, retry["hash"])
    plan = {**plan, "retries": [*plan["retries"], retry]}
    storage.publish_json(storage.join(data, PLAN_FILE), plan)
    return plan


def _cut(
    clips: Iterable[Clip], made_from: dict[str, Any], out: str, held: dict[str, Any] | None
) -> Iterator[list[Clip]]:
    """Cut a listing into shards: where the plan that it renews was cut, else by the bounds."""
    max_clips, max_mb = made_from["clips_per_shard"], made_from.get("max_shard_mb")
    if held and held["made_from"].get("max_shard_mb") == max_mb:
        counts = plan_tables.count_clips(out, [(part_of(held, shard), shard) for shard in range(held["num_shards"])])
        return cut_as(clips, counts, max_clips)
    return cut(clips, max_clips, max_mb)
