"""The reading task: a shard number -> its clips as canonical FLAC. Clips are read, checked and encoded in threads."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa

from pipeline import audio, sources
from pipeline.audio import fingerprint, fingerprint_table
from pipeline.graph.shard_batch import ClipRow, end_clip, pack
from pipeline.planning.plan import Plan
from pipeline.planning.tables import PlanRow
from pipeline.quality import deduplication
from pipeline.quality.audio_filter import AudioFilterConfig

READERS = 4  # threads of a task; reading waits for the store, and the codecs release the interpreter lock


class Reader:
    """What a reading task does; pickled to each."""

    def __init__(
        self,
        out: str,
        plan: Plan,
        fingerprints: tuple[str, ...],
        decoded_samples: int,
        audio_filter: AudioFilterConfig,
    ) -> None:
        """Take a dataset, its plan, fingerprint tables, how many samples to pass on decoded (0: actors decode), a filter."""
        self.out, self.plan, self.fingerprints, self.decoded_samples = out, plan, fingerprints, decoded_samples
        self.audio_filter = audio_filter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn a shard number into its clips; one that cannot be read becomes a failed row."""
        (shard,) = batch["shard"].to_pylist()
        copied = deduplication.of_shard(self.out, shard) if self.audio_filter.drop_copies else {}
        rows = self.plan.read_shard(self.out, shard)
        with ThreadPoolExecutor(READERS) as pool:
            return pack(shard, list(pool.map(lambda row: self._read(row, copied.get(row["key"], "")), rows)))

    def check(self, row: PlanRow) -> tuple[ClipRow, np.ndarray | None]:
        """Return a planned clip with its status after reading, and its samples int16 (T,) where it is ready."""
        if row["excluded"]:
            return end_clip(row, "filtered", "plan", "evaluation_clip", f"by its id a clip of {row['excluded']}"), None
        try:
            samples = sources.read_audio(_location(row))
        except audio.AudioError as error:
            return end_clip(row, "failed", "read", error.reason, error.detail), None
        if rejected := self.audio_filter.reject(samples):
            return end_clip(row, "filtered", "read", *rejected), None
        if known := self._known(samples):
            return end_clip(row, "filtered", "read", "evaluation_audio", known), None
        clip = cast("ClipRow", {**row})
        clip["status"] = "ready"
        return clip, samples

    def _read(self, row: PlanRow, copied: str) -> ClipRow:
        if copied:
            return end_clip(row, "filtered", "read", "audio_copy", copied)
        clip, samples = self.check(row)
        if samples is None:
            return clip
        clip["num_samples"], clip["flac"] = len(samples), audio.encode_flac(samples)
        if self.decoded_samples:
            clip["samples"] = samples[: self.decoded_samples].tobytes()
        return clip

    def _known(self, samples: np.ndarray) -> str:
        """Return which evaluation clip these samples sound like, or ''."""
        if not self.fingerprints:
            return ""
        match = _index(self.fingerprints).find(fingerprint.compute(samples, audio.SAMPLE_RATE_HZ))
        if match is None:
            return ""
        return f"sounds like {match.name} for {match.seconds:.1f} s, {match.bit_error_rate:.0%} of bits differ"


def _location(row: PlanRow) -> sources.AudioLocation:
    cut = row.get("cut_start_s") or 0.0, row.get("cut_end_s") or 0.0  # tables of early datasets have no such columns
    return sources.AudioLocation(row["uri"], row["offset"], row["size"], row["fault"], *cut)


@lru_cache(maxsize=1)
def _index(tables: tuple[str, ...]) -> fingerprint.FingerprintIndex:
    """Load evaluation fingerprints once for all the shards that a worker process reads."""
    return fingerprint.FingerprintIndex(entry for uri in tables for entry in fingerprint_table.read(uri))
