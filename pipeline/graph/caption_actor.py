"""The captioning actor: holds the model, decodes a shard's clips in threads and captions them in batches of one shape."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import audio
from pipeline.errors import InputError
from pipeline.graph import reader
from pipeline.graph.engine import ActorConfig
from train.models.captioner.decoding import Decoding

if TYPE_CHECKING:
    from train.models.captioner.model import CaptionerConfig

DECODERS = 2  # threads beside each model; libsndfile releases the interpreter lock
Guidance = Literal["tags", "predicted", "none"]


@dataclass(frozen=True, kw_only=True)
class CaptionActorConfig:
    """The captioner, and how it captions a clip."""

    captioner: str = ""
    """Checkpoint directory that `train captioner` wrote."""
    guidance: tuple[Guidance, ...] = ("tags",)
    """Give the captioner each clip's tags, those it hears itself, or none; several of these make captions of each
    kind. With `tags` alone, clips without any are filtered out."""
    tag_threshold: float = 0.3
    """Probability from which a predicted tag guides, from 0 to 1; a clip with none goes unguided."""
    decoding: Decoding = field(default_factory=Decoding)
    """How captions are chosen."""
    samples: int = 0
    """Captions added for each kind of guidance by nucleus sampling, with the top_p, temperature and seed of decoding."""
    batch_size: int = 32
    """Clips in one pass of the model; on a GPU every batch has this size."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the model; auto is bfloat16 on a GPU and float32 on a CPU."""
    actors: ActorConfig = field(default_factory=ActorConfig)
    """The pool of captioner actors."""

    def check(self, network: "CaptionerConfig") -> None:
        """Raise InputError for a field that cannot be, given the captioner's own config."""
        if not self.guidance or len(set(self.guidance)) < len(self.guidance):
            raise InputError("--guidance", self.guidance, "give one or more of tags, predicted, none, each once")
        for guidance in self.guidance:
            needs = {"tags": "guided", "predicted": "tagger", "none": ""}[guidance]
            if needs and not getattr(network, needs):
                remedy = f"this captioner has no such input ({needs} is false in its config.json); use --guidance none"
                raise InputError("--guidance", guidance, remedy)
        if not 0 <= self.tag_threshold <= 1:
            raise InputError("--tag-threshold", self.tag_threshold, "use a probability from 0 to 1")
        try:
            for decoding in self.decodings:
                decoding.check()
        except ValueError as error:
            raise InputError("--decoding", str(self.decoding), str(error)) from None
        if self.batch_size < 1:
            raise InputError("--batch-size", self.batch_size, "use 1 or more")
        self.actors.check()

    @property
    def decodings(self) -> list[Decoding]:
        """Return the ways in which each kind of guidance is decoded."""
        extra = [replace(self.decoding, method="nucleus", num_captions=self.samples)] if self.samples else []
        return [self.decoding, *extra]

    @property
    def arithmetic(self) -> str:
        """Return the name of the arithmetic that `precision` comes to."""
        automatic = "bfloat16" if self.actors.device == "cuda" else "float32"
        return automatic if self.precision == "auto" else self.precision


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
        shard, clips = reader.unpack(batch)
        for clip in clips:
            self._filter(clip)
        busy_s = 0.0
        for rows, waveforms in self._batches([clip for clip in clips if clip["status"] == "written"]):
            with self.model_lock, self._arithmetic():
                started = time.monotonic()
                self._caption(rows, waveforms)
                busy_s += time.monotonic() - started
        for clip in clips:
            clip["samples"] = None
        return reader.pack(shard, clips, self.name, busy_s)

    def _filter(self, clip: dict[str, Any]) -> None:
        if clip["status"] != "written" or self.config.guidance != ("tags",):
            return
        if not clip["tags"]:
            clip.update(status="filtered", stage="caption", reason="no_tags", detail="guidance needs a tag")
        elif not self.known & set(clip["tags"]):
            detail = f"the captioner knows none of {clip['tags']}"
            clip.update(status="filtered", stage="caption", reason="unknown_tags", detail=detail)

    def _batches(self, clips: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
        """Yield clips with their waveforms (B, T); the next batch decodes while the model works on this one."""
        size = self.config.batch_size
        groups = [clips[first : first + size] for first in range(0, len(clips), size)]
        ahead = self._decode(groups[0]) if groups else []
        for number, rows in enumerate(groups, start=1):
            following = groups[number] if number < len(groups) else []
            waveforms, ahead = [future.result() for future in ahead], self._decode(following)
            yield rows, np.stack(waveforms)

    def _decode(self, clips: list[dict[str, Any]]) -> list[Future[np.ndarray]]:
        return [self.decoders.submit(self._waveform, clip) for clip in clips]

    def _waveform(self, clip: dict[str, Any]) -> np.ndarray:
        decoded = clip["samples"] is not None
        samples = np.frombuffer(clip["samples"], np.int16) if decoded else audio.decode(clip["flac"])
        return audio.fit(samples, self.clip_samples)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        import torch

        if self.config.arithmetic == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _caption(self, clips: list[dict[str, Any]], waveforms: np.ndarray) -> None:
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
        heard = self.model.encode_audio(waveform, num_samples.to(self.device), audio.SAMPLE_RATE_HZ)
        for clip in clips:
            clip["captions"] = []
        for guidance, decoding in self.passes:
            tags, given = self._tags(guidance, clips, heard, len(keys))
            for clip, used, found in zip(clips, given, self.model.generate(heard, tags, decoding, keys), strict=False):
                if used is not None or guidance != "tags":
                    clip["captions"] += [_record(c, guidance, decoding, used) for c in found]
        for clip in clips:
            clip["captions"] = distinct(clip["captions"])
            if not clip["captions"]:
                clip.update(status="failed", stage="caption", reason="no_caption", detail="every caption was empty")

    def _tags(self, guidance: Guidance, clips: list[dict[str, Any]], heard: Any, rows: int) -> tuple[Any, list[Any]]:
        """Return the tags that guide, multi-hot (rows, tags), and their names by clip; None where there are none to give."""
        import torch

        if guidance == "predicted":
            tags = self.model.predict_tags(heard, self.config.tag_threshold)
            hot = tags[: len(clips)].tolist()
            return tags, [[tag for tag, on in zip(self.model.tags, row, strict=True) if on] for row in hot]
        given = [[tag for tag in clip["tags"] if tag in self.known] if guidance == "tags" else [] for clip in clips]
        tags = torch.nn.functional.pad(self.model.multi_hot(given), (0, 0, 0, rows - len(clips)))
        return tags.to(self.device), [names or None for names in given]


def distinct(captions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of captions in the order in which they were made; of those with one text the first stays."""
    first: dict[str, dict[str, Any]] = {}
    for record in captions:
        first.setdefault(record["text"], record)
    return list(first.values())


def _record(caption: Any, guidance: Guidance, decoding: Decoding, tags: list[str] | None) -> dict[str, Any]:
    return {
        "text": caption.text, "score": caption.score, "guidance": guidance, "decoding": str(decoding), "tags": tags,
    }  # fmt: skip
