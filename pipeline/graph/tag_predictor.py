"""Tags that a checkpoint with a tagging head predicts, to guide a captioner that has none of its own."""

from collections.abc import Sequence

from pipeline import storage
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.shard_batch import Samples

FLAG = "--tagger"


def check(config: CaptionActorConfig) -> dict[str, object]:
    """Return the revision of the tagger as run.json names it; nothing where no tags are predicted.

    Raises:
        InputError: where tags are to be predicted and there is no tagger, or the other way round.
    """
    from train import checkpoint

    if "predicted" not in config.guidance:
        if config.tagger:
            raise InputError(FLAG, config.tagger, "predicts tags for --guidance predicted; add that, or leave it out")
        return {}
    if not config.tagger:
        raise InputError(FLAG, "", "--guidance predicted needs a checkpoint with a tagging head")
    info = checkpoint.describe(config.tagger, FLAG, "captioner", "tagger")
    if info.kind == "captioner" and not getattr(info.network, "tagger", False):
        raise InputError(FLAG, config.tagger, "has no tagging head (tagger is false in its config.json)")
    if not storage.read_json(storage.join(storage.resolve(config.tagger), checkpoint.TAGS_FILE)):
        raise InputError(FLAG, config.tagger, "has no tagging head (its tags.json names no tag)")
    return {"tagger_revision": info.revision}


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
