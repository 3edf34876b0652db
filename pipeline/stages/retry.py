"""Do failed clips again, into new shards: `python -m pipeline retry --data <dataset> --reason <reason>`.

The shards that are there stay as they are. The plan grows by shards of the clips that failed for one of the reasons, in plan
order; from then on a clip counts as it ended last. Shards of the plan that are not committed are written first. An
interrupted retry goes on with the same command, or with `caption`.
"""

import dataclasses
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline import run_dir, sources, storage
from pipeline.audio import fingerprint_table
from pipeline.dataset import ledgers
from pipeline.errors import InputError
from pipeline.graph import caption_graph
from pipeline.graph.engine import ActorConfig
from pipeline.planning import plan

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
    max_bad_fraction: float = 0.05
    """The job fails when a larger share of all clips has failed still, from 0 to 1."""
    fingerprints: tuple[str, ...] = ()
    """Fingerprint tables of the firewall, where the dataset was made with some."""
    actors: ActorConfig = field(default_factory=ActorConfig)
    """The pool of captioner actors."""


def run(config: RetryConfig) -> None:
    """Plan the failed clips into new shards, then fill these."""
    from train import checkpoint
    from train.models.captioner.model import TagGuidedCaptioner

    if not config.data:
        raise InputError("--data", config.data, "give the --out of a `python -m pipeline caption`")
    data = storage.resolve(config.data)
    planned = plan.read(data)
    if planned is None or not storage.exists(storage.join(data, run_dir.RUN_FILE)):
        raise InputError("--data", config.data, "has no plan.json: no dataset of shards")
    owner = storage.read_json(storage.join(data, run_dir.RUN_FILE))
    again = _restore(config, owner, planned)
    checkpoint_info = checkpoint.describe(again.captioner, "--captioner", TagGuidedCaptioner)
    if checkpoint_info.revision != owner["captioner_revision"]:
        remedy = f"the dataset was made with revision {owner['captioner_revision'][:12]}; give that captioner"
        raise InputError("--captioner", again.captioner, f"is revision {checkpoint_info.revision[:12]}; {remedy}")
    caption_graph.check(again, checkpoint_info)
    if [fingerprint_table.revision(uri) for uri in config.fingerprints] != planned["made_from"]["fingerprints"]:
        remedy = "the dataset was made with others; give the same tables"
        raise InputError("--fingerprints", config.fingerprints, remedy)
    if not _goes_on(data, planned):
        caption_graph.write_shards(again, data, planned, checkpoint_info)
        planned = _extend(config, data, planned, again)
    caption_graph.fill(again, data, planned, checkpoint_info)


def _goes_on(data: str, planned: dict[str, Any]) -> bool:
    """Tell whether an earlier retry is planned and not written yet."""
    return any(plan.part_of(planned, shard)["first_shard"] for shard in plan.missing(data, planned))


def _restore(config: RetryConfig, owner: dict[str, Any], planned: dict[str, Any]) -> caption_graph.CaptionConfig:
    """Rebuild the config that the dataset was made with; only what the flags of a retry say is of this run."""
    as_made = run_dir.restore(caption_graph.CaptionConfig, owner)
    return dataclasses.replace(
        as_made,
        source=storage.resolve(config.source or planned["made_from"]["source"]),
        folds=tuple(planned["made_from"]["folds"]),
        clips_per_shard=planned["clips_per_shard"],
        max_shard_mb=planned["made_from"].get("max_shard_mb") or 0,
        precision=owner["arithmetic"],  # what `auto` came to: the actors may be of another kind now
        captioner=storage.resolve(config.captioner or as_made.captioner),
        actors=config.actors,
        max_bad_fraction=config.max_bad_fraction,
        firewall=dataclasses.replace(as_made.firewall, fingerprints=config.fingerprints),
    )


def _find_again(rows: list[dict[str, Any]], again: caption_graph.CaptionConfig, holds_all: bool) -> None:
    """Look in the source for where the audio of clips lies now: it may have come since, under another name."""
    places = {row["key"]: row for row in rows}
    for clip in sources.list_clips(again.source, again.folds, column_names=again.columns, holds_all=holds_all):
        if row := places.get(clip.key):
            row.update({name: getattr(clip, name) for name in (*sources.AudioLocation._fields, "note")})


def _extend(
    config: RetryConfig, data: str, planned: dict[str, Any], again: caption_graph.CaptionConfig
) -> dict[str, Any]:
    """Add the clips whose last outcome is a failure for one of the reasons."""
    last: dict[str, tuple[int, str]] = {}  # key -> shard and reason, of failed clips
    numbers = range(plan.num_shards(planned))
    for shard, ledger in zip(numbers, ledgers.read(data, numbers), strict=True):
        for row in ledger.select(["key", "status", "reason"]).to_pylist():
            last.pop(row["key"], None)
            if row["status"] == "failed":
                last[row["key"]] = shard, row["reason"]
    reasons = Counter(reason for _, reason in last.values())
    chosen = {key: place for key, place in last.items() if place[1] in config.reason}
    if not chosen:
        have = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none"
        raise InputError("--reason", config.reason, f"no clip failed so; the failed ones: {have}")
    wanted = sorted({shard for shard, _ in chosen.values()})
    rows = [
        row
        for shard in wanted
        for row in plan.read_shard(data, planned, shard)
        if row["key"] in chosen
        and chosen[row["key"]][0] == shard  # a clip of several tries is planned once, by its last
    ]
    _find_again(rows, again, planned.get("listing", {}).get("holds_all", False))
    counts = Counter(chosen[row["key"]][1] for row in rows)
    log.info("retry: %d clips (%s)", len(rows), ", ".join(f"{reason} {n}" for reason, n in counts.most_common()))
    return plan.extend(data, planned, rows, dict(counts))
