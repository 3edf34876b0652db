"""The reading task: a shard number -> its clips, decoded once and checked; their audio as canonical FLAC in a file.

Clips are read, decoded and, where they are not canonical already, encoded in threads. When a few attempts at a shard have
died, the next one decodes in a process of its own, which shows the clip that kills it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

import pyarrow as pa

from pipeline import audio, sources
from pipeline.audio import fingerprint, fingerprint_table
from pipeline.dataset import staging
from pipeline.errors import JobError
from pipeline.graph.clip_process import ClipProcess
from pipeline.graph.shard_batch import ClipRow, Samples, ShardBatch, Waveforms, end_clip
from pipeline.planning.plan import Plan
from pipeline.planning.tables import PlanRow
from pipeline.quality import deduplication
from pipeline.quality.audio_filter import AudioFilterConfig
from pipeline.storage.read_ahead import read_ahead

MAX_DEATHS = 2  # of attempts at a shard; the next one decodes in a process of its own
LAST_DEATH = 100  # after which the job ends; deaths of nodes and drivers count, too
READERS = 4  # threads of a task; reading waits for the store, and the codecs release the interpreter lock
ReadClip = Callable[[sources.AudioLocation], sources.CanonicalAudio]


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

    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a shard number into its clips; one that cannot be read becomes a failed row."""
        (shard,) = table["shard"].to_pylist()
        with self.reading(shard) as read_clip:
            return self._batch(shard, read_clip).to_table()

    @contextmanager
    def reading(self, shard: int) -> Iterator[ReadClip]:
        """Give what reads the clips of a shard: after a few attempts that died, a process of its own.

        Raises:
            JobError: when that was of no use; Ray would try it for ever.
        """
        with staging.attempt(self.out, shard) as deaths:
            if deaths >= LAST_DEATH:
                staging.forget_attempts(self.out, shard)
                first, last = (self.plan.read_shard(self.out, shard)[i]["key"] for i in (0, -1))
                remedy = "memory may be short: see the logs of the nodes; the same command tries again"
                raise JobError(f"shard {shard:05d} ({first} to {last}): {deaths} processes died reading it; {remedy}")
            if deaths < MAX_DEATHS:
                yield sources.read_canonical
            else:
                with ClipProcess() as process:
                    yield process.read

    def _batch(self, shard: int, read_clip: ReadClip) -> ShardBatch:
        copied = deduplication.of_shard(self.out, shard) if self.audio_filter.drop_copies else {}
        rows = self.plan.read_shard(self.out, shard)
        waveforms = Waveforms(len(rows), self.decoded_samples)
        clips: list[ClipRow] = []

        def flacs() -> Iterator[bytes]:
            """Yield the audio as it is read: a disk takes it at once, so that memory holds the samples alone."""
            end = 0
            read = read_ahead(
                lambda i: self._read(rows[i], copied.get(rows[i]["key"], ""), i, waveforms, read_clip),
                range(len(rows)),
                READERS,
            )
            for clip, flac in read:
                clip["flac_offset"], clip["flac_size"] = end, len(flac)
                end += len(flac)
                clips.append(clip)
                yield flac

        audio_uri = staging.write(self.out, shard, flacs())
        return ShardBatch(shard=shard, clips=clips, audio=audio_uri, waveforms=waveforms.joined())

    def check(
        self, row: PlanRow, read_clip: ReadClip = sources.read_canonical
    ) -> tuple[ClipRow, sources.CanonicalAudio | None]:
        """Return a planned clip with its status after reading, and its audio where it is ready."""
        if row["excluded"]:
            return end_clip(row, "filtered", "plan", "evaluation_clip", f"by its id a clip of {row['excluded']}"), None
        try:
            found = read_clip(location(row))
        except audio.AudioError as error:
            return end_clip(row, "failed", "read", error.reason, error.detail), None
        if rejected := self.audio_filter.reject(found.samples):
            return end_clip(row, "filtered", "read", *rejected), None
        if known := self._known(found.samples):
            return end_clip(row, "filtered", "read", "evaluation_audio", known), None
        clip = cast("ClipRow", {**row})
        clip["status"], clip["num_samples"] = "ready", len(found.samples)
        return clip, found

    def _read(
        self, row: PlanRow, copied: str, index: int, waveforms: Waveforms, read_clip: ReadClip
    ) -> tuple[ClipRow, bytes]:
        """Return a clip and its FLAC, and put its samples among the waveforms; nothing of a clip that is left out."""
        if copied:
            return end_clip(row, "filtered", "read", "audio_copy", copied), b""
        clip, found = self.check(row, read_clip)
        if found is None:
            return clip, b""
        flac = found.flac or audio.encode_flac(found.samples)
        waveforms.put(index, found.samples)
        return clip, flac

    def _known(self, samples: Samples) -> str:
        """Return which evaluation clip these samples sound like, or ''."""
        if not self.fingerprints:
            return ""
        match = _index(self.fingerprints).find(fingerprint.compute(samples, audio.SAMPLE_RATE_HZ))
        if match is None:
            return ""
        return f"sounds like {match.name} for {match.seconds:.1f} s, {match.bit_error_rate:.0%} of bits differ"


def location(row: PlanRow) -> sources.AudioLocation:
    """Return where the audio of a planned clip is."""
    cut = row.get("cut_start_s") or 0.0, row.get("cut_end_s") or 0.0  # tables of early datasets have no such columns
    return sources.AudioLocation(row["uri"], row["offset"], row["size"], row["fault"], *cut)


@lru_cache(maxsize=1)
def _index(tables: tuple[str, ...]) -> fingerprint.FingerprintIndex:
    """Load evaluation fingerprints once for all the shards that a worker process reads."""
    return fingerprint.FingerprintIndex(entry for uri in tables for entry in fingerprint_table.read(uri))
