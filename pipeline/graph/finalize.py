"""The end of a caption job: check the counts of all shards, and publish sizes.json and the dataset card."""

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import commit, ledgers, shards, statistics
from pipeline.dataset.shard_stats import COUNTS, ShardStats
from pipeline.errors import InputError, JobError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.run_config import read_run_config
from pipeline.pages import dataset_card
from pipeline.planning.plan import Plan, read_plan

log = logging.getLogger(__name__)
SIZES_FILE = "sizes.json"
NUM_EXAMPLES = 3  # of clips, in a message
READERS = 16  # commit marks read at a time; from object storage each is a wait


def finalize(out: str, plan: Plan, max_bad_fraction: float) -> None:
    """Publish sizes and card of a filled plan; the shards stay either way.

    Raises:
        JobError: when a shard is of another plan, too many clips failed, or none was written.
    """
    stats = _read_stats(out, plan)
    counts, reasons = net_counts(plan, stats)
    message = f"{counts['in']:,} clips = " + " + ".join(f"{counts[name]:,} {name}" for name in COUNTS[1:])
    message += f" ({', '.join(f'{reason} {n}' for reason, n in reasons.most_common())})" if reasons else ""
    if counts["failed"] > max_bad_fraction * counts["in"]:
        remedy = "the shards are kept; `pipeline retry` does failed clips again, or allow more with --max-bad-fraction"
        raise JobError(
            f"{message}: more than {max_bad_fraction:.0%} failed, {_examples(out, plan, 'failed')}; {remedy}"
        )
    if not counts["written"]:
        guided = "; --guidance none or predicted needs no tags" if {"no_tags", "unknown_tags"} & set(reasons) else ""
        raise JobError(f"{message}: nothing to train on, {_examples(out, plan, 'filtered')}{guided}")
    commit.clean_up(out)
    decoding = str(read_run_config(out, CaptionConfig).config.decoding)
    card = dataset_card.render(out, plan, counts, dict(reasons), statistics.collect(out, plan.shards), decoding)
    storage.publish(storage.join(out, dataset_card.CARD_FILE), card.encode())
    sizes = {shards.tar_name(stat.shard): stat.written for stat in stats}
    storage.publish_json(storage.join(out, SIZES_FILE), sizes)
    log.info("caption: %s: %s", out, message)


def _examples(out: str, plan: Plan, status: shards.Status) -> str:
    """Return some clips of a status with what their ledgers say."""
    tables = (table.filter(pc.equal(table["status"], status)) for table in ledgers.read(out, plan.shards))
    rows = itertools.islice((row for table in tables for row in table.to_pylist()), NUM_EXAMPLES)
    return "such as " + ", ".join(f"{row['key']} ({row['reason']}: {row['detail']})" for row in rows)


def _read_stats(out: str, plan: Plan) -> list[ShardStats]:
    """Read every commit mark. Raises JobError when one is of another plan."""
    with ThreadPoolExecutor(READERS) as pool:
        stats = list(pool.map(lambda shard: shards.read_stats(out, shard), plan.shards))
    others = [stat.shard for stat in stats if stat.plan_hash != plan.part_of(stat.shard).hash]
    if others:
        raise JobError(f"shards {others} in {out} are of another plan; delete them and run again")
    return stats


def net_counts(plan: Plan, stats: Sequence[ShardStats]) -> tuple[dict[str, int], Counter[str]]:
    """Return the counts of a dataset and what left clips out; a clip that was tried again counts as it ended last."""
    counts = Counter({name: sum(stat.counts[name] for stat in stats) for name in COUNTS})
    reasons: Counter[str] = sum((Counter(stat.reasons) for stat in stats), Counter())
    for retry in plan.retries:
        again = sum(retry.reasons.values())
        counts.subtract({"in": again, "failed": again})
        reasons.subtract(retry.reasons)
    reasons = +reasons
    assert counts["in"] == plan.num_clips == counts["written"] + counts["filtered"] + counts["failed"], counts
    return dict(counts), reasons


def is_finalized(out: str, plan: Plan) -> bool:
    """Return whether the sizes of every planned shard are published."""
    uri = storage.join(out, SIZES_FILE)
    return storage.exists(uri) and len(storage.read_json(uri)) == len(plan.shards)


def read_finished_plan(data: str, flag: str = "--data") -> Plan:
    """Return the plan of a finished dataset. Raises InputError when there is none, or shards of a retry are to come."""
    if not data:
        raise InputError(flag, data, "give the --out of a finished `python -m pipeline caption`")
    folder = storage.resolve(data)
    plan = read_plan(folder)
    if plan is None:
        raise InputError(flag, data, "has no plan.json: no dataset of shards")
    if not is_finalized(folder, plan):
        raise InputError(flag, data, "is not finished; `pipeline caption` or `retry` with the same flags goes on")
    return plan
