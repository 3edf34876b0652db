"""A source -> the draft of a plan: its tables, counts and hash. Nothing is written to the dataset.

pipeline/planning/cut.py decides where shards end; a listing that renews a plan is cut where the plan was, since sizes of
files may have changed. What is held in memory is a table of shards and eight bytes for each key, not the clips.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import errors, sources, storage
from pipeline.audio import fingerprint_table
from pipeline.planning.cut import MAX_SHARD_MB, cut, cut_as
from pipeline.planning.decontamination import Decontamination, DecontaminationConfig
from pipeline.planning.plan import MadeFrom, Plan, read_plan
from pipeline.planning.tables import EXTRA, TableWriter
from pipeline.progress import Progress
from pipeline.sources.clip import Clip

COMPARED_FIELDS = (  # in which two plans may differ
    "source", "folds", "clips_per_shard", "max_shard_mb", "columns", "timed", "texts", "lists", "allow", "fingerprints",
)  # fmt: skip
LATER = ("cut_start_s", "cut_end_s", "note", *EXTRA)  # hashed where a clip has one: early plans have none
CLIP_FIELDS = {"origin": "recording_id", "texts": "captions"}  # column -> field of `Clip`, where they differ
HASHED = ("key", "source_id", "origin", "fault", "start_s", "end_s", "tags", "mids")


class PlanDraft(NamedTuple):
    """A plan that is not published yet."""

    plan: Plan
    tables: TableWriter | None  # None when the published ones stand


def draft_plan(
    out: str,
    source: str,
    folds: tuple[str, ...],
    clips_per_shard: int,
    decontamination: DecontaminationConfig,
    max_shard_mb: float = MAX_SHARD_MB,
    columns: str = "",
    timed: bool = False,
    texts: bool = False,
) -> PlanDraft:
    """Return the plan of a source, from the published one where nothing has changed since; writes nothing to `out`.

    With `timed` it holds the events of the clips, with `texts` the captions or titles that the source gives.

    Raises:
        InputError: when the source cannot be listed, two clips share a key, or `out` has another plan.
    """
    _check(source, clips_per_shard, max_shard_mb)
    matcher = Decontamination(decontamination, storage.resolve(source))
    made_from = MadeFrom(
        source=storage.resolve(source),
        folds=list(folds),
        stamp=sources.stamp(source, events=timed),
        lists=storage.plain([storage.stamps([one.list]) for one in matcher.lists]),
        allow=list(decontamination.allow),
        fingerprints=[fingerprint_table.revision(uri) for uri in decontamination.fingerprints],
        clips_per_shard=clips_per_shard,
        max_shard_mb=max_shard_mb,
        columns=columns,
        timed=timed,
        texts=texts,
    )
    published = read_plan(storage.resolve(out)) if out else None
    if published and published.made_from.max_shard_mb is None:
        made_from = dataclasses.replace(made_from, max_shard_mb=None)  # it stays planned by clips alone
    if published and published.made_from == made_from:
        return PlanDraft(published, None)
    plan, tables = _list(source, storage.resolve(out), made_from, matcher, published)
    if published is None:
        return PlanDraft(plan, tables)
    if published.hash != plan.hash:
        raise errors.InputError("--out", out, _difference(published, made_from))
    return PlanDraft(dataclasses.replace(plan, retries=published.retries), tables)


def _check(source: str, clips_per_shard: int, max_shard_mb: float) -> None:
    if clips_per_shard < 1:
        raise errors.InputError("--clips-per-shard", clips_per_shard, "use 1 or more")
    if max_shard_mb < 0:
        remedy = "use a number above 0, or 0 to bound shards by clips alone"
        raise errors.InputError("--max-shard-mb", max_shard_mb, remedy)
    if not source:
        raise errors.InputError("--source", source, sources.SOURCE_HINT)


def _difference(published: Plan, made_from: MadeFrom) -> str:
    """Return what differs between the settings of this plan and of the published one."""
    before, now = vars(published.made_from), vars(made_from)
    changes = [f"{name} was {before[name]}, now {now[name]}" for name in COMPARED_FIELDS if before[name] != now[name]]
    difference = "; ".join(changes) or f"the source lists other clips than the {published.num_clips} of its plan"
    return f"is planned otherwise: {difference}; choose another folder or delete it"


def _list(
    source: str, out: str, made_from: MadeFrom, matcher: Decontamination, published: Plan | None
) -> tuple[Plan, TableWriter]:
    """List a source and plan its shards. A listing in which keys are equal is repeated, see `sources.list_clips`."""
    for listed_all in (False, True):
        stats = sources.ListingStats()
        clips = sources.list_clips(
            source, tuple(made_from.folds), column_names=made_from.columns, stats=stats, holds_all=listed_all
        )
        plan, tables, same_key = _fill_tables(_cut(clips, made_from, out, published), made_from, matcher)
        if not same_key:
            listing = sources.ListingStats.from_json(stats.as_json())
            return dataclasses.replace(plan, listing=listing, listed_all=listed_all), tables
    raise errors.InputError("--source", source, same_key)


def _cut(clips: Iterable[Clip], made_from: MadeFrom, out: str, published: Plan | None) -> Iterator[list[Clip]]:
    """Cut a listing into shards: where the plan that it renews was cut, else by the bounds."""
    max_clips, max_mb = made_from.clips_per_shard, made_from.max_shard_mb
    if published and published.made_from.max_shard_mb == max_mb:
        return cut_as(clips, published.count_clips(out, range(published.num_shards)), max_clips)
    return cut(clips, max_clips, max_mb)


def _fill_tables(
    listing: Iterable[list[Clip]], made_from: MadeFrom, matcher: Decontamination
) -> tuple[Plan, TableWriter, str]:
    """Plan shards as they are listed, and return what is wrong with their keys, or ''."""
    digest = hashlib.sha256(json.dumps([made_from.clips_per_shard, made_from.fingerprints]).encode())
    counts: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    key_hashes: list[np.ndarray] = []
    seconds = 0.0
    tables, progress = TableWriter(made_from.extra), Progress("plan", "clips")
    for clips in listing:
        sets = [matcher.match(clip) for clip in clips]
        columns = {name: [_value(clip, name) for clip in clips] for name in tables.schema.names if name != "excluded"}
        tables.add({**columns, "excluded": sets})
        hashed = [*HASHED, *(name for name in LATER if any(columns.get(name, ())))]
        digest.update(json.dumps([[columns[name] for name in hashed], sets]).encode())
        key_hashes.append(np.fromiter(map(hash, columns["key"]), np.int64, len(clips)))
        tags.update(tag for clip in clips for tag in clip.tags)
        excluded.update(filter(None, sets))
        seconds += sum(max(0.0, clip.end_s - clip.start_s) for clip in clips)
        counts.update(
            clips=len(clips),
            untagged=sum(not c.tags for c in clips),
            faults=sum(bool(c.fault) for c in clips),
            timed=sum(bool(c.events) for c in clips),
            with_text=sum(map(bool, columns.get("texts", ()))),
        )
        progress.add(len(clips))
    if not counts["clips"]:
        raise errors.InputError("--source", made_from.source, sources.no_clip(made_from.folds))
    if made_from.texts and not counts["with_text"]:
        remedy = "gives no clip a caption or title to rewrite; --columns captions=<column> names the column"
        raise errors.InputError("--source", made_from.source, remedy)
    plan = Plan(
        hash=digest.hexdigest(),
        num_clips=counts["clips"],
        num_shards=tables.num_shards,
        clips_per_shard=made_from.clips_per_shard,
        duration_s=round(seconds, 3),
        num_without_tags=counts["untagged"],
        num_faults=counts["faults"],
        matched_sets=matcher.summary(dict(excluded.most_common())),
        tags=dict(tags.most_common()),
        made_from=made_from,
        num_timed=counts["timed"] if made_from.timed else None,
    )
    return plan, tables, _same_key(np.concatenate(key_hashes), tables)


def _value(clip: Clip, column: str) -> Any:
    """Return what a table holds of a clip in a column."""
    if column == "events":
        return [event._asdict() for event in clip.events]
    return getattr(clip, CLIP_FIELDS.get(column, column))


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
