"""The reading task: a shard number -> its clips as canonical FLAC, read, checked and encoded in threads."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import audio, sources
from pipeline.audio import fingerprint, fingerprint_table
from pipeline.planning import plan
from pipeline.planning.draft import SCHEMA
from pipeline.quality import deduplication
from pipeline.quality.audio_filter import AudioFilterConfig

READERS = 4  # threads of a task; reading waits for the store, and the codecs release the interpreter lock
CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("score", pa.float64()),
        ("guidance", pa.string()),
        ("decoding", pa.string()),
        ("tags", pa.list_(pa.string())),  # that guided it; null without guidance
    ]
)
CLIP = pa.struct(  # one clip on its way; a row of the graph holds a list of these
    [
        *SCHEMA,
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("num_samples", pa.int64()),
        ("flac", pa.large_binary()),
        (
            "samples",
            pa.large_binary(),
        ),  # int16, cut to what the model hears; only where the reader decodes for the actor
        ("captions", pa.list_(CAPTION)),
    ]
)
SHARD = pa.schema([("shard", pa.int32()), ("clips", pa.list_(CLIP)), ("actor", pa.string()), ("busy_s", pa.float64())])


class Reader:
    """What a reading task does; pickled to each."""

    def __init__(
        self,
        out: str,
        planned: dict[str, Any],
        fingerprints: tuple[str, ...],
        decoded_samples: int,
        audio_filter: AudioFilterConfig,
    ) -> None:
        """Take a dataset, its plan, fingerprint tables, how many samples to pass on decoded (0: actors decode), a filter."""
        self.out, self.planned, self.fingerprints, self.decoded_samples = out, planned, fingerprints, decoded_samples
        self.audio_filter = audio_filter

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn a shard number into its clips; one that cannot be read becomes a failed row."""
        (shard,) = batch["shard"].to_pylist()
        copied = deduplication.of_shard(self.out, shard) if self.audio_filter.drop_copies else {}
        rows = plan.read_shard(self.out, self.planned, shard)
        with ThreadPoolExecutor(READERS) as pool:
            return pack(shard, list(pool.map(lambda row: self._read(row, copied.get(row["key"], "")), rows)))

    def check(self, row: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
        """Return a planned clip as far as reading it decides what becomes of it, and its samples where it goes on."""
        if row["excluded"]:
            return _ended(row, "filtered", "plan", "evaluation_clip", f"by its id a clip of {row['excluded']}"), None
        try:
            fields = {name: row[name] for name in sources.AudioLocation._fields if row.get(name) is not None}
            samples = sources.read_audio(sources.AudioLocation(**fields))
        except audio.AudioError as error:
            return _ended(row, "failed", "read", error.reason, error.detail), None
        if rejected := self.audio_filter.reject(samples):
            return _ended(row, "filtered", "read", *rejected), None
        if known := self._known(samples):
            return _ended(row, "filtered", "read", "evaluation_audio", known), None
        return {**row, "status": "written"}, samples

    def _read(self, row: dict[str, Any], copied: str) -> dict[str, Any]:
        if copied:
            return _ended(row, "filtered", "read", "audio_copy", copied)
        row, samples = self.check(row)
        if samples is None:
            return row
        row |= {"num_samples": len(samples), "flac": audio.encode_flac(samples)}
        if self.decoded_samples:
            row["samples"] = samples[: self.decoded_samples].tobytes()
        return row

    def _known(self, samples: Any) -> str:
        """Return which evaluation clip these samples sound like, or ''."""
        if not self.fingerprints:
            return ""
        match = _index(self.fingerprints).find(fingerprint.compute(samples, audio.SAMPLE_RATE_HZ))
        if match is None:
            return ""
        return f"sounds like {match.name} for {match.seconds:.1f} s, {match.bit_error_rate:.0%} of bits differ"


def _ended(row: dict[str, Any], status: str, stage: str, reason: str, detail: str) -> dict[str, Any]:
    return {**row, "status": status, "stage": stage, "reason": reason, "detail": detail}


def pack(shard: int, clips: list[dict[str, Any]], actor: str = "", busy_s: float = 0.0) -> pa.Table:
    """Return a shard on its way as one row."""
    return pa.Table.from_pylist([{"shard": shard, "clips": clips, "actor": actor, "busy_s": busy_s}], schema=SHARD)


def unpack(batch: pa.Table) -> tuple[int, list[dict[str, Any]]]:
    """Return the number and the clips of a shard on its way."""
    (shard,) = batch["shard"].to_pylist()
    return shard, batch["clips"].combine_chunks().flatten().to_pylist()


@lru_cache(maxsize=1)
def _index(tables: tuple[str, ...]) -> fingerprint.FingerprintIndex:
    """Load evaluation fingerprints once for all the shards that a worker process reads."""
    return fingerprint.FingerprintIndex(entry for uri in tables for entry in fingerprint_table.read(uri))
