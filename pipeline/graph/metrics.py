"""Metrics of a caption job, which Ray exports for Prometheus."""

from pipeline.dataset.shard_stats import ShardStats


class JobMetrics:
    """Counters and gauges of one driver."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge  # here: jobs in this process go without ray

        self.clips = Counter("blat_clips", "Clips by outcome.", ("status", "reason"))
        self.seconds = Counter("blat_audio_seconds", "Seconds of audio written.")
        self.rate = Gauge("blat_clips_per_second", "Clips a second since the start of the run.")
        self.busy = Gauge("blat_model_busy_ratio", "Share of the actors' time in which the model worked, 0 to 1.")

    def add(self, stats: ShardStats, clips_per_s: float, busy_share: float) -> None:
        """Count one committed shard."""
        if stats.written:
            self.clips.inc(stats.written, {"status": "written", "reason": ""})
        for reason, count in stats.reasons.items():
            self.clips.inc(count, {"status": "left out", "reason": reason})
        if stats.duration_s:
            self.seconds.inc(stats.duration_s)
        self.rate.set(clips_per_s)
        self.busy.set(busy_share)
