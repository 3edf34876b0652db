"""Tags that a checkpoint with a tagging head predicts, to guide a captioner that has none of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.shard_batch import Samples

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo

FLAG = "--tagger"


def check(config: CaptionActorConfig) -> dict[str, object]:
    """Return the revision of the tagger as run.json names it; nothing where no tags are predicted.

    Raises:
        InputError: where tags are to be predicted and there is no tagger, or the other way round.
    """
    if "predicted" not in config.guidance:
        if config.tagger:
            raise InputError(FLAG, config.tagger, "predicts tags for --guidance predicted; add that, or leave it out")
        return {}
    if not config.tagger:
        raise InputError(FLAG, "", "--guidance predicted needs a checkpoint with a tagging head")
    return {"tagger_revision": describe(FLAG, config.tagger).revision}


def describe(flag: str, tagger: str) -> "CheckpointInfo[Any]":
    """Describe a checkpoint that tags. Raises InputError, naming the flag, for one without a tagging head."""
    from train import checkpoint

    info = checkpoint.describe(tagger, flag, "captioner", "tagger")
    if info.kind == "captioner" and not getattr(info.network, "tagger", False):
        raise InputError(flag, tagger, "has no tagging head (tagger is false in its config.json)")
    if not storage.read_json(storage.join(storage.resolve(tagger), checkpoint.TAGS_FILE)):
        raise InputError(flag, tagger, "has no tagging head (its tags.json names no tag)")
    return info


class TagPredictor:
    """A checkpoint with a tagging head, in an actor."""

    def __init__(self, config: CaptionActorConfig) -> None:
        """Load the checkpoint."""
        from train import checkpoint

        self.device, self.threshold = config.actors.torch_device(), config.tag_threshold
        self.model = checkpoint.load(storage.resolve(config.tagger)).model.to(self.device)

    def predict(self, waveforms: Sequence[Samples], rate_hz: int) -> list[list[str]]:
        """Return the tags of clips, int16 (T,) each, whose probability reaches the threshold."""
        if hasattr(self.model, "predict_tags"):
            encoded = self.model.encode_audio_clips(waveforms, rate_hz)
            hot = self.model.predict_tags(encoded, self.threshold) > 0
        else:
            _, probabilities = self.model.encode_clips(waveforms, rate_hz)
            hot = probabilities >= self.threshold
        return [[tag for tag, on in zip(self.model.tags, row, strict=True) if on] for row in hot.tolist()]
