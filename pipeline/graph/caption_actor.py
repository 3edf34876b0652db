"""The captioning actor: holds a captioner, and gives it the clips of a shard batch by batch.

Shapes: B = clips of a batch, T = samples that the captioner takes of a clip.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import audio
from pipeline.dataset import staging
from pipeline.graph import caption_failures, captioners
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.caption_failures import NO_CAPTION
from pipeline.graph.captioner import Captioner, ClipBatch
from pipeline.graph.frame_tagger import FrameTagger
from pipeline.graph.frame_tagger_config import FrameTaggerConfig
from pipeline.graph.shard_batch import ClipRow, Samples, ShardBatch, end_clip
from pipeline.storage.read_ahead import read_ahead

REMEDY = "the same command goes on once that is mended; --max-bad-fraction 1 writes such clips as failed"
DECODERS = 2  # threads beside each model, where the actor decodes


class ReadyClip(NamedTuple):
    """A clip that can be captioned, and where its samples lie among the waveforms of its shard."""

    row: ClipRow
    other_tags: list[str]  # those of another clip of the shard
    first: int
    last: int


class CaptionActor:
    """The actor. Ray calls it from two threads, so that one shard is prepared while the model works on another."""

    def __init__(
        self,
        config: CaptionActorConfig,
        make_captioner: Callable[[CaptionActorConfig], Captioner] = captioners.make,
        timed_by: FrameTaggerConfig | None = None,
    ) -> None:
        """Make the captioner, and the tagger where one is to find times. The arguments are pickled on their way here."""
        self.config = config
        self.captioner = make_captioner(config)
        self.frame_tagger = FrameTagger(timed_by, config.actors, config.batch_size) if timed_by else None
        self.decoders = ThreadPoolExecutor(DECODERS)
        self.name = f"{os.uname().nodename}-{os.getpid()}"

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add captions to the clips of one shard; neither audio nor waveforms leave the actor.

        Raises:
            JobError: when almost all of them got none, for one reason.
        """
        batch = ShardBatch.from_table(table)
        ready = self._ready(batch)
        try:
            flac = staging.read(batch.audio) if ready and not len(batch.waveforms) else None
        except FileNotFoundError:  # another writer has committed the shard, which the writing task will find
            return batch.to_table()
        busy_s = 0.0
        counts = Counter(batch.captioning)  # of an earlier part, where only some of its clips are captioned again
        failed: dict[str, tuple[str, str]] = {}
        for clips, waveform in (
            self._padded_batches(batch, ready) if flac is None else self._decoded_batches(flac, ready)
        ):
            clip_batch = self._batch(batch.shard, clips, waveform)
            made = self.captioner.caption(clip_batch)
            self._find_phrases(clips, clip_batch)
            busy_s += made.busy_s
            counts.update(made.counts)
            failed.update(made.failed)
            for clip, captions in zip(clips, made.captions, strict=True):
                clip.row["captions"] = captions
        ended = [_ended(row, failed) for row in batch.clips]
        self._check(batch.shard, ready, ended)
        captioned = ShardBatch(
            shard=batch.shard,
            clips=ended,
            audio=batch.audio,
            actor=self.name,
            busy_s=busy_s,
            captioning=dict(counts),
        )
        return captioned.to_table()

    def _ready(self, batch: ShardBatch) -> list[ReadyClip]:
        """Return the clips to caption; others of the batch get the reason why not."""
        ready, first, others = [], 0, other_tags(batch.clips)
        for index, row in enumerate(batch.clips):
            if row["status"] != "ready":
                continue
            last = first + min(row["num_samples"], self.captioner.clip_samples)
            if rejected := self.captioner.reject(row["tags"], row.get("texts") or ()):
                batch.clips[index] = end_clip(row, "filtered", "caption", *rejected)
            else:
                ready.append(ReadyClip(row, others[index], first, last))
            first = last
        return ready

    def _check(self, shard: int, ready: list[ReadyClip], clips: Sequence[ClipRow]) -> None:
        """Raise JobError when almost all clips that could be captioned failed for one reason."""
        given = {clip.row["key"] for clip in ready}
        failed = {
            row["key"]: (row["reason"], row["detail"])
            for row in clips
            if row["status"] == "failed" and row["key"] in given
        }
        caption_failures.check_clips(f"shard {shard:05d}", failed, len(given), self.config.max_bad_fraction, REMEDY)

    def _batch(self, shard: int, clips: Sequence[ReadyClip], waveform: Samples) -> ClipBatch:
        rows = [clip.row for clip in clips]
        lengths = [min(row["num_samples"], self.captioner.clip_samples) for row in rows]
        return ClipBatch(
            keys=[row["key"] for row in rows],
            tags=[row["tags"] for row in rows],
            other_tags=[clip.other_tags for clip in clips],
            waveform=waveform,
            num_samples=lengths,
            rate_hz=audio.SAMPLE_RATE_HZ,
            shard=shard,
            texts=[row.get("texts") or [] for row in rows],
        )

    def _find_phrases(self, clips: Sequence[ReadyClip], batch: ClipBatch) -> None:
        """Tag the frames of the clips of a batch that have no strong labels, where all of a clip is at hand."""
        longest = self.captioner.clip_samples
        untimed = [
            index
            for index, clip in enumerate(clips)
            if not clip.row.get("events") and clip.row["num_samples"] <= longest
        ]
        if self.frame_tagger is None or not untimed:
            return
        lengths, tags = [batch.num_samples[index] for index in untimed], [batch.tags[index] for index in untimed]
        found = self.frame_tagger.tag(batch.waveform[untimed], lengths, batch.rate_hz, tags)
        for index, phrases in zip(untimed, found, strict=True):
            clips[index].row["phrases"] = phrases

    def _groups(self, ready: list[ReadyClip]) -> list[list[ReadyClip]]:
        size = self.config.batch_size
        return [ready[first : first + size] for first in range(0, len(ready), size)]

    def _padded_batches(self, batch: ShardBatch, ready: list[ReadyClip]) -> Iterator[tuple[list[ReadyClip], Samples]]:
        """Yield clips that the reader has decoded, with their waveforms (B, T)."""
        yield from ((clips, self._padded(batch.waveforms, clips)) for clips in self._groups(ready))

    def _decoded_batches(self, flac: memoryview, ready: list[ReadyClip]) -> Iterator[tuple[list[ReadyClip], Samples]]:
        """Decode clips and yield them with their waveforms (B, T)."""

        def decode(clips: list[ReadyClip]) -> Samples:
            return np.stack(list(self.decoders.map(lambda clip: self._decoded(flac, clip.row), clips)))

        groups = self._groups(ready)
        with closing(read_ahead(decode, groups, 1)) as decoded:  # the next batch, while the model works on this one
            yield from zip(groups, decoded, strict=True)

    def _padded(self, waveforms: Samples, clips: list[ReadyClip]) -> Samples:
        """Return clips as (B, T): a view where all are as long as the captioner takes and follow one another."""
        size, first, last = self.captioner.clip_samples, clips[0].first, clips[-1].last
        if last - first == len(clips) * size and all(clip.last - clip.first == size for clip in clips):
            return waveforms[first:last].reshape(len(clips), size)
        padded = np.zeros((len(clips), size), np.int16)
        for row, clip in zip(padded, clips, strict=True):
            row[: clip.last - clip.first] = waveforms[clip.first : clip.last]
        return padded

    def _decoded(self, flac: memoryview, row: ClipRow) -> Samples:
        start = row["flac_offset"]
        return audio.fit(audio.decode(bytes(flac[start : start + row["flac_size"]])), self.captioner.clip_samples)


def other_tags(clips: Sequence[ClipRow]) -> list[list[str]]:
    """Return for each clip of a shard the tags of another one: of the next in the order of the keys' hashes, which has
    nothing to do with what is in the clips. Neither batches nor unreadable clips change it."""
    order = sorted(range(len(clips)), key=lambda index: hashlib.sha256(clips[index]["key"].encode()).digest())
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [clips[following[index]]["tags"] for index in range(len(clips))]


def _ended(row: ClipRow, failed: Mapping[str, tuple[str, str]]) -> ClipRow:
    """Return a clip after captioning; one that is ready and has no caption has failed, by the captioner's reason."""
    if row["status"] != "ready" or row["captions"]:
        return row
    reason, detail = failed.get(row["key"], (NO_CAPTION, "every caption was empty"))
    return end_clip(row, "failed", "caption", reason, detail)
