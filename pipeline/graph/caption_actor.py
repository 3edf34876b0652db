"""The captioning actor: holds the model, decodes a shard's clips in threads and captions them in batches of one shape."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import audio
from pipeline.graph.caption_config import CaptionActorConfig, Guidance
from pipeline.graph.shard_batch import CaptionRow, ClipRow, end_clip, pack, unpack
from train.models.captioner.decoding import Decoding

if TYPE_CHECKING:
    import torch

    from train.models.captioner.encoder import EncodedAudio
    from train.models.captioner.model import Caption

DECODERS = 2  # threads beside each model; libsndfile releases the interpreter lock


class GenerationSpec(NamedTuple):
    """One way of captioning every clip of a batch."""

    guidance: Guidance
    decoding: Decoding


class CaptionActor:
    """The actor. Ray calls it from two threads, so that one shard is decoded while the model works on another."""

    def __init__(self, config: CaptionActorConfig) -> None:
        from train import checkpoint  # here, so that the CPU tasks of this room start without torch

        self.config = config
        self.device = config.actors.torch_device()
        self.model = checkpoint.load(config.captioner).model.to(self.device)
        self.clip_samples = round(self.model.config.clip_s * audio.SAMPLE_RATE_HZ)
        self.known = set(self.model.tags)
        self.passes = [
            GenerationSpec(guidance, decoding) for guidance in config.guidance for decoding in config.decodings
        ]
        self.decoders = ThreadPoolExecutor(DECODERS)
        self.model_lock = threading.Lock()  # one batch at a time on the model
        self.name = f"{os.uname().nodename}-{os.getpid()}"

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add captions to the clips of one shard."""
        shard, clips = unpack(batch)
        clips = [self._filter(clip) for clip in clips]
        busy_s = 0.0
        for rows, waveforms in self._batches([clip for clip in clips if clip["status"] == "ready"]):
            with self.model_lock, self._arithmetic():
                started = time.monotonic()
                self._caption(rows, waveforms)
                busy_s += time.monotonic() - started
        for clip in clips:
            clip["samples"] = None
        clips = [clip if clip["status"] != "ready" or clip["captions"] else _without_caption(clip) for clip in clips]
        return pack(shard, clips, self.name, busy_s)

    def _filter(self, clip: ClipRow) -> ClipRow:
        if clip["status"] != "ready" or self.config.guidance != ("tags",):
            return clip
        if not clip["tags"]:
            return end_clip(clip, "filtered", "caption", "no_tags", "guidance needs a tag")
        if not self.known & set(clip["tags"]):
            detail = f"the captioner knows none of {clip['tags']}"
            return end_clip(clip, "filtered", "caption", "unknown_tags", detail)
        return clip

    def _batches(self, clips: list[ClipRow]) -> Iterator[tuple[list[ClipRow], np.ndarray]]:
        """Yield clips with their waveforms (B, T); the next batch decodes while the model works on this one."""
        size = self.config.batch_size
        groups = [clips[first : first + size] for first in range(0, len(clips), size)]
        ahead = self._decode(groups[0]) if groups else []
        for number, rows in enumerate(groups, start=1):
            following = groups[number] if number < len(groups) else []
            waveforms, ahead = [future.result() for future in ahead], self._decode(following)
            yield rows, np.stack(waveforms)

    def _decode(self, clips: list[ClipRow]) -> list[Future[np.ndarray]]:
        return [self.decoders.submit(self._waveform, clip) for clip in clips]

    def _waveform(self, clip: ClipRow) -> np.ndarray:
        decoded = clip["samples"]
        samples = audio.decode(clip["flac"]) if decoded is None else np.frombuffer(decoded, np.int16)
        return audio.fit(samples, self.clip_samples)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        import torch

        if self.config.arithmetic == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _caption(self, clips: list[ClipRow], waveforms: np.ndarray) -> None:
        import torch

        lengths = [min(clip["num_samples"], self.clip_samples) for clip in clips]
        keys = [clip["key"] for clip in clips]
        on_gpu = self.device.type == "cuda"
        if on_gpu and (missing := self.config.batch_size - len(clips)):  # silence, so that every batch has one shape
            waveforms = np.pad(waveforms, ((0, missing), (0, 0)))
            lengths += [self.clip_samples] * missing
            keys += [""] * missing
        waveform, num_samples = torch.from_numpy(waveforms), torch.tensor(lengths)
        if on_gpu:
            waveform = waveform.pin_memory()
        waveform = waveform.to(self.device, non_blocking=True)
        encoded_audio = self.model.encode_audio(waveform, num_samples.to(self.device), audio.SAMPLE_RATE_HZ)
        made: list[list[CaptionRow]] = [[] for _ in clips]
        for guidance, decoding in self.passes:
            tags, guides = self._tags(guidance, clips, encoded_audio, len(keys))
            captions = self.model.generate(encoded_audio, tags, decoding, keys)
            for rows, used, found in zip(made, guides, captions, strict=False):
                if used is not None or guidance != "tags":
                    rows += [_record(caption, guidance, decoding, used) for caption in found]
        for clip, rows in zip(clips, made, strict=True):
            clip["captions"] = distinct(rows)

    def _tags(
        self, guidance: Guidance, clips: list[ClipRow], encoded_audio: "EncodedAudio", rows: int
    ) -> tuple["torch.Tensor", list[list[str] | None]]:
        """Return the tags that guide, multi-hot (rows, tags), and their names by clip; None where there are none to give."""
        import torch

        if guidance == "predicted":
            tags = self.model.predict_tags(encoded_audio, self.config.tag_threshold)
            hot = tags[: len(clips)].tolist()
            return tags, [[tag for tag, on in zip(self.model.tags, row, strict=True) if on] for row in hot]
        given = [[tag for tag in clip["tags"] if tag in self.known] if guidance == "tags" else [] for clip in clips]
        tags = torch.nn.functional.pad(self.model.multi_hot(given), (0, 0, 0, rows - len(clips)))
        return tags.to(self.device), [names or None for names in given]


def _without_caption(clip: ClipRow) -> ClipRow:
    return end_clip(clip, "failed", "caption", "no_caption", "every caption was empty")


def distinct(captions: list[CaptionRow]) -> list[CaptionRow]:
    """Return the records of captions in the order in which they were made; of those with one text the first stays."""
    first: dict[str, CaptionRow] = {}
    for record in captions:
        first.setdefault(record["text"], record)
    return list(first.values())


def _record(caption: "Caption", guidance: Guidance, decoding: Decoding, tags: list[str] | None) -> CaptionRow:
    return {
        "text": caption.text, "score": caption.score, "guidance": guidance, "decoding": str(decoding), "tags": tags,
    }  # fmt: skip
