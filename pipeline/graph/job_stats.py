"""What became of every clip: live while a dataset is written, and settled at its end. in = written + filtered + failed."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import commit, shards, statistics
from pipeline.errors import InputError, JobError
from pipeline.graph.engine import ActorConfig
from pipeline.graph.metrics import JobMetrics
from pipeline.pages import dataset_card
from pipeline.planning import plan
from pipeline.progress import Progress
from train.models.captioner.decoding import Decoding

log = logging.getLogger(__name__)
COUNTS = ("in", "written", "filtered", "failed")
SIZES_FILE = "sizes.json"
READERS = 16  # commit marks read at a time; from object storage each is a wait
FAR_OVER = 2  # times the bound of a shard: FLAC and listed sizes differ by less
SHARD_STATS_SCHEMA = pa.schema(  # what a writing task tells the driver of a shard
    [
        ("shard", pa.int64()),
        ("tar_size", pa.int64()),
        *((name, pa.int64()) for name in COUNTS),
        ("reasons", pa.map_(pa.string(), pa.int64())),
        ("duration_s", pa.float64()),
        ("actor", pa.string()),
        ("busy_s", pa.float64()),
    ]
)


class ProgressReporter:
    """The counts of a run while it goes on: progress lines and, on Ray, metrics."""

    def __init__(self, num_clips: int, actors: ActorConfig, max_shard_mb: float) -> None:
        self.progress = Progress("caption", "clips", num_clips)
        self.device = actors.device
        self.max_shard_mb = max_shard_mb  # 0 once a larger shard was named, or where there is no bound
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.hours, self.busy_s = 0.0, 0.0
        self.actors: set[str] = set()
        self.metrics = None if actors.in_process else JobMetrics()

    def add(self, row: dict[str, Any]) -> None:
        """Count one committed shard, a row of TOLD."""
        reasons = dict(row["reasons"])
        self.counts.update({name: row[name] for name in COUNTS})
        self.reasons.update(reasons)
        self.hours += row["duration_s"] / 3600
        self.busy_s += row["busy_s"]
        self.actors.add(row["actor"])
        if self.metrics:
            self.metrics.add(row, reasons, self.counts["in"] / self.progress.elapsed_s, self._busy_share())
        self._check_size(row)
        self.progress.add(row["in"], self.told())

    def told(self) -> str:
        """Return the accounts as one line."""
        ended = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in COUNTS[1:]) + (f" ({ended})" if ended else "")
        hours = f"{self.hours / self.progress.elapsed_s:.3f} h of audio a second"
        return f"{counts}; {hours}; {self.device} busy {self._busy_share():.0%}"

    def _check_size(self, row: dict[str, Any]) -> None:
        """Warn once of a shard that came out far larger than the plan's bound."""
        size_mb = row["tar_size"] / 1e6
        if self.max_shard_mb and size_mb > FAR_OVER * self.max_shard_mb:
            log.warning(
                "caption: shard %05d has %.0f MB, --max-shard-mb is %g: its clips are longer than the listing shows. "
                "It is whole. If memory runs short, use a lower --clips-per-shard or --max-shard-mb and another --out",
                row["shard"],
                size_mb,
                self.max_shard_mb,
            )
            self.max_shard_mb = 0

    def _busy_share(self) -> float:
        return min(1.0, self.busy_s / (self.progress.elapsed_s * max(1, len(self.actors))))


def finalize(out: str, planned: dict[str, Any], max_bad_fraction: float) -> None:
    """Publish sizes and card of a filled plan; the shards stay either way.

    Raises:
        JobError: when a shard is of another plan, too many clips failed, or none was written.
    """
    with ThreadPoolExecutor(READERS) as pool:
        stats = list(pool.map(lambda shard: shards.read_stats(out, shard), range(plan.num_shards(planned))))
    strangers = [stat["shard"] for stat in stats if stat["plan_hash"] != plan.part_of(planned, stat["shard"])["hash"]]
    if strangers:
        raise JobError(f"shards {strangers} in {out} are of another plan; delete them and run again")
    counts, reasons = net_counts(planned, stats)
    told = f"{counts['in']:,} clips = " + " + ".join(f"{counts[name]:,} {name}" for name in COUNTS[1:])
    told += f" ({', '.join(f'{reason} {n}' for reason, n in reasons.most_common())})" if reasons else ""
    if counts["failed"] > max_bad_fraction * counts["in"]:
        remedy = "the shards are kept; `pipeline retry` does failed clips again, or allow more with --max-bad-fraction"
        raise JobError(f"{told}: more than {max_bad_fraction:.0%} failed; {remedy}")
    if not counts["written"]:
        raise JobError(f"{told}: nothing to train on; the shards' ledgers in {out} tell why")
    commit.clean_up(out)
    sizes = {shards.tar_name(stat["shard"]): stat["written"] for stat in stats}
    found = statistics.collect(out, range(plan.num_shards(planned)))
    decoding = str(Decoding(**storage.read_json(storage.join(out, run_dir.RUN_FILE))["decoding"]))
    storage.publish(
        storage.join(out, dataset_card.CARD_FILE),
        dataset_card.render(out, planned, counts, dict(reasons), found, decoding).encode(),
    )
    storage.publish_json(storage.join(out, SIZES_FILE), sizes)
    log.info("caption: %s: %s", out, told)


def whole(data: str, flag: str = "--data") -> dict[str, Any]:
    """Return the plan of a finished dataset. Raises InputError when there is none, or shards of a retry are to come."""
    if not data:
        raise InputError(flag, data, "give the --out of a finished `python -m pipeline caption`")
    folder = storage.resolve(data)
    planned = plan.read(folder)
    if planned is None:
        raise InputError(flag, data, "has no plan.json: no dataset of shards")
    if not finalized(folder, planned):
        raise InputError(flag, data, "is not finished; `pipeline caption` or `retry` with the same flags goes on")
    return planned


def finalized(out: str, planned: dict[str, Any]) -> bool:
    """Tell whether the sizes of every planned shard are published."""
    uri = storage.join(out, SIZES_FILE)
    return storage.exists(uri) and len(storage.read_json(uri)) == plan.num_shards(planned)


def net_counts(planned: dict[str, Any], stats: list[dict[str, Any]]) -> tuple[dict[str, int], Counter[str]]:
    """Return the counts of a dataset and what left clips out; a clip that was tried again counts as it ended last."""
    counts = Counter({name: sum(stat[name] for stat in stats) for name in COUNTS})
    reasons: Counter[str] = sum((Counter(stat["reasons"]) for stat in stats), Counter())
    for retry in planned["retries"]:
        again = sum(retry["reasons"].values())
        counts.subtract({"in": again, "failed": again})
        reasons.subtract(retry["reasons"])
    reasons = +reasons
    assert counts["in"] == planned["num_clips"] == counts["written"] + counts["filtered"] + counts["failed"], counts
    return dict(counts), reasons
