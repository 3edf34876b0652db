"""The counts of a caption job while it runs: what a writing task reports, and the progress of all."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.dataset.shard_stats import COUNTS, ShardStats
from pipeline.graph.engine import ActorConfig
from pipeline.graph.metrics import JobMetrics
from pipeline.progress import Progress

log = logging.getLogger(__name__)
OVERSIZE = 2  # times the bound of a shard: FLAC and listed sizes differ by less
SHARD_STATS_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("plan_hash", pa.string()),
        *((name, pa.int64()) for name in COUNTS),
        ("reasons", pa.map_(pa.string(), pa.int64())),
        ("duration_s", pa.float64()),
        ("tar_size", pa.int64()),
        ("tar_sha256", pa.string()),
        ("actor", pa.string()),
        ("busy_s", pa.float64()),
        ("captioning", pa.map_(pa.string(), pa.int64())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a writing task reports to the driver of one shard."""

    stats: ShardStats
    actor: str
    """Name of the actor that made the captions."""
    busy_s: float
    """Seconds in which its model worked on the shard."""

    def to_batch(self) -> pa.Table:
        """Return a table of one row, of SHARD_STATS_SCHEMA."""
        stats = self.stats
        maps = {"reasons": list(stats.reasons.items()), "captioning": list(stats.captioning.items())}
        row = {**stats.to_json(), **maps}
        return pa.Table.from_pylist([{**row, "actor": self.actor, "busy_s": self.busy_s}], schema=SHARD_STATS_SCHEMA)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ShardReport":
        """Return the report in a row of SHARD_STATS_SCHEMA."""
        return cls(stats=ShardStats.from_json(row), actor=row["actor"], busy_s=row["busy_s"])


class ProgressReporter:
    """Adds up the shards of a run: progress lines and, on Ray, metrics."""

    def __init__(self, num_clips: int, actors: ActorConfig, max_shard_mb: float) -> None:
        self.progress = Progress("caption", "clips", num_clips)
        self.device = actors.device
        self.max_shard_mb = max_shard_mb  # 0 once a larger shard was named, or where there is no bound
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.captioning: Counter[str] = Counter()
        self.hours, self.busy_s = 0.0, 0.0
        self.actors: set[str] = set()
        self.metrics = None if actors.in_process else JobMetrics()

    def add(self, report: ShardReport) -> None:
        """Count one committed shard."""
        stats = report.stats
        self.counts.update(stats.counts)
        self.reasons.update(stats.reasons)
        self.captioning.update(stats.captioning)
        self.hours += stats.duration_s / 3600
        self.busy_s += report.busy_s
        self.actors.add(report.actor)
        if self.metrics:
            self.metrics.add(stats, self.counts["in"] / self.progress.elapsed_s, self._busy_share())
        self._check_size(stats)
        self.progress.add(stats.num_clips, self.message())

    def message(self) -> str:
        """Return the counts as one line."""
        reasons = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in COUNTS[1:]) + (
            f" ({reasons})" if reasons else ""
        )
        hours = f"{self.hours / self.progress.elapsed_s:.3f} h of audio a second"
        captioning = "".join(f"; {name} {n:,}" for name, n in sorted(self.captioning.items()))
        return f"{counts}; {hours}; {self.device} busy {self._busy_share():.0%}{captioning}"

    def _check_size(self, stats: ShardStats) -> None:
        """Warn once of a shard that came out far larger than the plan's bound."""
        size_mb = stats.tar_size / 1e6
        if self.max_shard_mb and size_mb > OVERSIZE * self.max_shard_mb:
            log.warning(
                "caption: shard %05d has %.0f MB, --max-shard-mb is %g: its clips are longer than the listing shows. "
                "It is whole. If memory runs short, use a lower --clips-per-shard or --max-shard-mb and another --out",
                stats.shard,
                size_mb,
                self.max_shard_mb,
            )
            self.max_shard_mb = 0

    def _busy_share(self) -> float:
        return min(1.0, self.busy_s / (self.progress.elapsed_s * max(1, len(self.actors))))
