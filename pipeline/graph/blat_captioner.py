"""BLAT's captioner in the graph: batches of one shape on a GPU, several kinds of guidance, several decodings.

Shapes: B = clips of a batch, T = samples of each.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import audio, storage
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionActorConfig, Guidance
from pipeline.graph.captioner import CaptionedBatch, CaptionerInfo, ClipBatch, ClipFilter, distinct
from pipeline.graph.shard_batch import CaptionRow
from train.models.captioner.decoding import Decoding

if TYPE_CHECKING:
    import torch

    from train.models.captioner.encoder import EncodedAudio
    from train.models.captioner.model import Caption


def describe(config: CaptionActorConfig) -> CaptionerInfo:
    """Read the checkpoint's own config. Raises InputError where it cannot do what the job's config asks."""
    from train import checkpoint

    checkpoint_info = checkpoint.describe(config.captioner, "--captioner", "captioner")
    for guidance in config.guidance:
        needs = {"tags": "guided", "shuffled": "guided", "predicted": "tagger", "none": ""}[guidance]
        if needs and not getattr(checkpoint_info.network, needs):
            remedy = f"this captioner has no such input ({needs} is false in its config.json); use --guidance none"
            raise InputError("--guidance", guidance, remedy)
    return CaptionerInfo(
        captioner=storage.resolve(config.captioner),
        revision=checkpoint_info.revision,
        clip_s=checkpoint_info.network.clip_s,
        has_score=True,
    )


def clip_filter(config: CaptionActorConfig) -> ClipFilter:
    """Return which clips would be captioned, by their tags."""
    from train import checkpoint

    if config.guidance != ("tags",):
        return ClipFilter()
    return ClipFilter(any_of=frozenset(storage.read_json(storage.join(config.captioner, checkpoint.TAGS_FILE))))


class GenerationSpec(NamedTuple):
    """One way of captioning every clip of a batch."""

    guidance: Guidance
    decoding: Decoding


class BlatCaptioner:
    """A `Captioner` from a checkpoint of `train captioner`."""

    def __init__(self, config: CaptionActorConfig) -> None:
        import torch  # here, so that the CPU tasks of this room start without torch

        from train import checkpoint

        self.config = config
        self.device = config.actors.torch_device()
        self.model = checkpoint.load(config.captioner).model.to(self.device)
        if self.device.type == "cuda":  # as tensor cores read images
            self.model.to(memory_format=torch.channels_last)
        if config.speed.compile == "on":
            self.model.compile_encoder()
        self.clip_samples = round(self.model.config.clip_s * audio.SAMPLE_RATE_HZ)
        self.known = set(self.model.tags)
        self.passes = [
            GenerationSpec(guidance, decoding) for guidance in config.guidance for decoding in config.decodings
        ]
        self.model_lock = threading.Lock()  # one batch at a time on the model

    def reject(self, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
        """See `Captioner.reject`: guidance by given tags needs one that the captioner knows."""
        if self.config.guidance not in (("tags",), ("shuffled",)) or self.known & set(tags):
            return None
        if not tags:
            return "no_tags", "guidance needs a tag"
        return "unknown_tags", f"the captioner knows none of {tags}"

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """See `Captioner.caption`."""
        keys, waveform, num_samples = self._inputs(clips)
        with self.model_lock, self._arithmetic():
            started = time.monotonic()
            on_device = waveform.to(self.device, non_blocking=True), num_samples.to(self.device, non_blocking=True)
            encoded_audio = self.model.encode_audio(*on_device, clips.rate_hz)
            made: list[list[CaptionRow]] = [[] for _ in clips.keys]
            for guidance, decoding in self.passes:
                tags, guides = self._tags(guidance, clips, encoded_audio, len(keys))
                captions = self.model.generate(encoded_audio, tags, decoding, keys)
                for rows, used, found in zip(made, guides, captions, strict=False):
                    if used is not None or guidance != "tags":
                        rows += [_record(caption, guidance, decoding, used) for caption in found]
            busy_s = time.monotonic() - started
        return CaptionedBatch([distinct(rows) for rows in made], busy_s)

    def _inputs(self, clips: ClipBatch) -> tuple[list[str], "torch.Tensor", "torch.Tensor"]:
        """Return keys, waveforms (B, T) and lengths (B,); on a GPU every batch has one shape, filled up with silence."""
        import torch

        on_gpu, count = self.device.type == "cuda", len(clips.keys)
        missing = self.config.batch_size - count if on_gpu else 0
        waveform = torch.empty(count + missing, self.clip_samples, dtype=torch.int16, pin_memory=on_gpu)
        waveform[:count].numpy()[:] = clips.waveform
        waveform[count:] = 0
        return clips.keys + missing * [""], waveform, torch.tensor(clips.num_samples + missing * [self.clip_samples])

    def _arithmetic(self) -> AbstractContextManager[Any]:
        import torch

        if self.config.arithmetic == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _tags(
        self, guidance: Guidance, clips: ClipBatch, encoded_audio: "EncodedAudio", rows: int
    ) -> tuple["torch.Tensor", list[list[str] | None]]:
        """Return the tags that guide, multi-hot (rows, tags), and their names by clip; None where there are none to give."""
        import torch

        if guidance == "predicted":
            tags = self.model.predict_tags(encoded_audio, self.config.tag_threshold)
            hot = tags[: len(clips.keys)].tolist()
            return tags, [[tag for tag, on in zip(self.model.tags, row, strict=True) if on] for row in hot]
        unguided: list[list[str]] = [[] for _ in clips.keys]
        listed = {"tags": clips.tags, "shuffled": clips.other_tags, "none": unguided}[guidance]
        given = [[tag for tag in tags if tag in self.known] for tags in listed]
        tags = torch.nn.functional.pad(self.model.multi_hot(given), (0, 0, 0, rows - len(given)))
        return tags.to(self.device), [names or None for names in given]


def _record(caption: "Caption", guidance: Guidance, decoding: Decoding, tags: list[str] | None) -> CaptionRow:
    return {
        "text": caption.text, "score": caption.score, "guidance": guidance, "decoding": str(decoding), "tags": tags,
    }  # fmt: skip
