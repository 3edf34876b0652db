"""Do failed clips again, into new shards: `python -m pipeline retry --data <dataset> --reason <reason>`.

The shards that are there stay as they are. The plan grows by shards of the clips that failed for one of the reasons, in plan
order; from then on a clip counts as it ended last. Shards of the plan that are not committed are written first. An
interrupted retry goes on with the same command, or with `caption`; one for other reasons finishes it first.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline import run_dir, sources, storage
from pipeline.audio import fingerprint_table
from pipeline.dataset import ledgers
from pipeline.errors import InputError
from pipeline.graph import caption_graph, captioner_name, captioners, frame_tagger
from pipeline.graph.caption_config import CaptionConfig, check_fields
from pipeline.graph.engine import ActorConfig
from pipeline.graph.run_config import RunConfig, read_run_config
from pipeline.planning.plan import Plan, Retry, read_plan
from pipeline.planning.publish import extend_plan
from pipeline.planning.tables import PlanRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """Caption failed clips of a dataset again, into new shards."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    reason: tuple[str, ...] = ()
    """Reasons of failure, as the ledger and the dataset card name them, such as missing or unreadable."""
    source: str = ""
    """Where the clips lie now: the same list, moved; empty where it was."""
    captioner: str = ""
    """Where the captioner lies now; empty where it was."""
    captioner_url: str = ""
    """Endpoint of an openai: captioner; empty where it was."""
    timed_tagger: str = ""
    """Where the tagger of --timed.tagger lies now; empty where it was."""
    max_bad_fraction: float = 0.05
    """The job fails when a larger share of all clips has failed still, from 0 to 1."""
    fingerprints: tuple[str, ...] = ()
    """Fingerprint tables of evaluation audio, where the dataset was made with some."""
    actors: ActorConfig = field(default_factory=ActorConfig)
    """The pool of captioner actors."""


class Failure(NamedTuple):
    """The last try at a clip, which failed."""

    shard: int
    reason: str


def run(config: RetryConfig) -> None:
    """Plan the failed clips into new shards, then fill these."""
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a `python -m pipeline caption`")
    data = storage.resolve(config.data)
    plan = read_plan(data)
    if plan is None or not storage.exists(storage.join(data, run_dir.RUN_FILE)):
        raise InputError("--data", config.data, "has no plan.json: no dataset of shards")
    run_config = read_run_config(data, CaptionConfig)
    caption_config = _restore(config, run_config, plan)
    info = captioners.describe(caption_config)
    if info.revision != run_config.captioner_revision:
        remedy = f"the dataset was made with revision {run_config.captioner_revision[:12]}; give that captioner"
        raise InputError("--captioner", caption_config.captioner, f"is revision {info.revision[:12]}; {remedy}")
    check_fields(caption_config)
    if frame_tagger.revision(caption_config.timed_by) != run_config.frame_tagger_revision:
        remedy = f"the dataset was made with revision {run_config.frame_tagger_revision[:12]}; give that tagger"
        raise InputError("--timed-tagger", caption_config.timed_by.tagger, remedy)
    if [fingerprint_table.revision(uri) for uri in config.fingerprints] != plan.made_from.fingerprints:
        remedy = "the dataset was made with others; give the same tables"
        raise InputError("--fingerprints", config.fingerprints, remedy)
    begun = _begun(data, plan)
    if begun:
        log.info(
            "retry: first the %d clips (%s) of the retry that is not finished", begun.num_clips, _list(begun.reasons)
        )
    caption_graph.write_shards(caption_config, data, plan, info.clip_s)
    plan = _extend(config, data, plan, caption_config, begun)
    caption_graph.fill(caption_config, data, plan, info.clip_s)


def _begun(data: str, plan: Plan) -> Retry | None:
    """Return the last retry when shards of retries are planned and not written yet."""
    missing = plan.missing(data)
    return plan.retries[-1] if missing and missing[-1] >= plan.num_shards else None


def _list(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())


def _restore(config: RetryConfig, run_config: RunConfig[CaptionConfig], plan: Plan) -> CaptionConfig:
    """Rebuild the config that the dataset was made with; only what the flags of a retry set is of this run."""
    as_made = run_config.config
    timed_tagger = storage.resolve(config.timed_tagger) if config.timed_tagger else as_made.timed_by.tagger
    return dataclasses.replace(
        as_made,
        source=storage.resolve(config.source or plan.made_from.source),
        folds=tuple(plan.made_from.folds),
        clips_per_shard=plan.clips_per_shard,
        max_shard_mb=plan.made_from.max_shard_mb or 0,
        precision=run_config.precision,  # what `auto` came to: the actors may be of another kind now
        captioner=captioner_name.resolve(config.captioner or as_made.captioner),
        captioner_url=config.captioner_url or as_made.captioner_url,
        timed_by=dataclasses.replace(as_made.timed_by, tagger=timed_tagger),
        actors=config.actors,
        max_bad_fraction=config.max_bad_fraction,
        firewall=dataclasses.replace(as_made.firewall, fingerprints=config.fingerprints),
    )


def _extend(config: RetryConfig, data: str, plan: Plan, caption_config: CaptionConfig, begun: Retry | None) -> Plan:
    """Add shards for the clips whose last outcome is a failure for one of the reasons, but for those of `begun`.

    An interrupted command that goes on finds its own clips there; one with other reasons adds the clips that are left.
    """
    failures = _last_failures(data, plan.shards)
    chosen = {key: failure for key, failure in failures.items() if failure.reason in config.reason}
    if begun:
        chosen = {key: failure for key, failure in chosen.items() if failure.shard < begun.first_shard}
        if not chosen:
            return plan
    if not chosen:
        have = _list(Counter(failure.reason for failure in failures.values())) or "none"
        raise InputError("--reason", config.reason, f"no clip failed so; the failed ones: {have}")
    rows = [
        row
        for shard in sorted({failure.shard for failure in chosen.values()})
        for row in plan.read_shard(data, shard)
        if row["key"] in chosen
        and chosen[row["key"]].shard == shard  # a clip of several tries is planned once, by its last
    ]
    _find_again(rows, caption_config, plan.listed_all)
    counts = Counter(chosen[row["key"]].reason for row in rows)
    log.info("retry: %d clips (%s)", len(rows), _list(counts))
    return extend_plan(data, plan, rows, dict(counts))


def _last_failures(data: str, numbers: Iterable[int]) -> dict[str, Failure]:
    """Return the clips, by key, whose last outcome is a failure."""
    last: dict[str, Failure] = {}
    for shard, ledger in zip(numbers, ledgers.read(data, numbers), strict=True):
        for row in ledger.select(["key", "status", "reason"]).to_pylist():
            last.pop(row["key"], None)
            if row["status"] == "failed":
                last[row["key"]] = Failure(shard, row["reason"])
    return last


def _find_again(rows: list[PlanRow], config: CaptionConfig, listed_all: bool) -> None:
    """Look in the source for where the audio of clips lies now: it may have come since, under another name."""
    by_key = {row["key"]: row for row in rows}
    for clip in sources.list_clips(config.source, config.folds, column_names=config.columns, holds_all=listed_all):
        if row := by_key.get(clip.key):
            location = {name: getattr(clip, name) for name in sources.AudioLocation._fields}
            row.update({**location, "note": clip.note})  # type: ignore[typeddict-item]
