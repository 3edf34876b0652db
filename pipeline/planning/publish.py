"""Publish a plan, and extend a published one by the shards of a retry. plan.json is published after the tables."""

import dataclasses
import hashlib
import json
import logging
from operator import itemgetter

from pipeline import errors, storage
from pipeline.planning import tables as plan_tables
from pipeline.planning.cut import WEIGHED, cut
from pipeline.planning.draft import PlanDraft
from pipeline.planning.plan import PLAN_FILE, Plan, Retry
from pipeline.planning.tables import PlanRow, TableWriter

log = logging.getLogger(__name__)


def publish_plan(data: str, draft: PlanDraft) -> Plan:
    """Publish a draft and return its plan; the same plan again only renews where the audio lies.

    Raises:
        InputError: when another plan was published since the draft was made.
    """
    plan, marker = draft.plan, storage.join(data, PLAN_FILE)
    if draft.tables:
        draft.tables.publish(data, plan.hash)
        if not storage.create(marker, storage.json_bytes(plan.to_json())):
            published = Plan.from_json(storage.read_json(marker))
            if published.hash != plan.hash:
                plan_tables.remove(data, plan.hash)
                remedy = (
                    "another job has just planned it otherwise; start again to fill that plan, or use another folder"
                )
                raise errors.InputError("--out", data, remedy)
            plan = dataclasses.replace(plan, retries=published.retries)
            storage.publish_json(marker, plan.to_json())
    if plan.listing:
        log.info("plan: %s", plan.listing.sentence())
    log.info("plan: %d clips in %d shards, hash %s", plan.num_clips, plan.num_shards, plan.hash[:12])
    return plan


def extend_plan(data: str, plan: Plan, rows: list[PlanRow], reasons: dict[str, int]) -> Plan:
    """Publish new shards for clips that are tried again; return the new plan.

    Raises:
        InputError: when another retry extended the plan at the same time; the plan holds that one.
    """
    number = len(plan.retries) + 1
    new_shards = list(cut(rows, plan.clips_per_shard, plan.made_from.max_shard_mb, itemgetter(*WEIGHED)))
    keys = [[row["key"] for row in shard] for shard in new_shards]
    retry = Retry(
        reasons=reasons,
        first_shard=len(plan.shards),
        num_shards=len(new_shards),
        num_clips=len(rows),
        hash=hashlib.sha256(json.dumps([plan.hash, number, keys]).encode()).hexdigest(),
    )
    tables = TableWriter(plan.made_from.extra)
    for shard in new_shards:
        tables.add({name: [row.get(name) for row in shard] for name in tables.schema.names})
    tables.publish(data, retry.hash)
    decision, marker = storage.join(data, plan_tables.retry_name(plan.hash, number)), storage.join(data, PLAN_FILE)
    if not storage.create(decision, storage.json_bytes(retry.to_json())):
        retry = Retry.from_json(storage.read_json(decision))
    extended = dataclasses.replace(plan, retries=(*plan.retries, retry))
    if len(storage.read_json(marker)["retries"]) < number:  # also where the retry that was decided on died before this
        storage.publish_json(marker, extended.to_json())
    if retry.reasons != reasons or retry.num_clips != len(rows):
        remedy = f"another retry, of {', '.join(retry.reasons)}, was planned at the same time; start again"
        raise errors.InputError("--reason", list(reasons), f"{remedy} to finish it and go on with these")
    return extended
