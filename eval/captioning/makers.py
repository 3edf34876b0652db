"""What evaluations of captions ask of whoever wrote the captions; and the checkpoint, which is one of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from eval import results
from eval.embedding import evaluation, in_process
from eval.embedding.in_process import Written
from eval.results.records import ModelRecord
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train import checkpoint
from train.models.captioner.decoding import Decoding

NEEDS = {"tags": "guided", "shuffled": "guided", "predicted": "tagger"}  # guidance -> field of the network
GivenTags = Mapping[str, list[tuple[str, ...]] | None]  # guidance -> tags of each clip; None: the model predicts them


class Making(NamedTuple):
    """How captions are made."""

    decoding: Decoding
    tag_threshold: float
    batch_size: int
    device: str


class Judged(NamedTuple):
    """Captions to judge."""

    written: Written
    captioners: Sequence[str] = ()  # who wrote the caption of each clip, where several did
    facts: Mapping[str, Any] = {}  # what else the results state, such as how many clips have tags


class Maker(Protocol):
    """Who wrote or writes the captions."""

    record: ModelRecord  # as results name it
    uri: str  # of the checkpoint; '' where there is none, and what the captions were made by counts alone

    def write(self, clips: Sequence[Clip], given: GivenTags, making: Making) -> Judged:
        """Return a caption of each clip that has one, for each kind of guidance."""
        ...


class CheckpointMaker:
    """A checkpoint of `train captioner`, described but not loaded."""

    def __init__(self, uri: str, guidance: Sequence[str]) -> None:
        """Raise InputError where there is none, or it has no such guidance."""
        self.uri, self.guidance = uri, guidance
        info = checkpoint.describe(uri, "--model", "captioner")
        for name in guidance:
            if name in NEEDS and not getattr(info.network, NEEDS[name]):
                raise InputError("--guidance", name, f"this captioner has no such input: {NEEDS[name]} is false")
        self.record = results.record(info, uri)

    def write(self, clips: Sequence[Clip], given: GivenTags, making: Making) -> Judged:
        """See `Maker.write`. Raises InputError where tags are to guide and no clip has one: all kinds would be the same."""
        loaded = evaluation.load(self.uri, "--model", making.device)
        known = set(loaded.model.tags)
        if {"tags", "shuffled"} & set(given) and not any(known & set(clip.tags) for clip in clips):
            remedy = (
                "no clip has a tag that the captioner knows; for AudioCaps put AudioSet's segments tables and class "
            )
            raise InputError("--task-dir", "", remedy + "labels beside its CSV, or use --guidance none")
        written = in_process.caption(
            loaded.model, clips, dict(given), making.decoding, making.tag_threshold, making.batch_size
        )
        facts = {
            "num_tagged": sum(bool(set(clip.tags) & known) for clip in written.clips),
            "notes": _notes(loaded, given),
        }
        return Judged(written, facts=facts)


def _notes(loaded: checkpoint.Checkpoint, given: GivenTags) -> list[str]:
    """Return what a reader of the numbers must know."""
    untrained = loaded.info.lineage.get("tag_dropout") == 0
    if not (untrained and loaded.model.config.guided and "none" in given):
        return []
    return [
        "none: this captioner was trained with tags on every clip (tag dropout 0), so that captions without tags are "
        "out of its training; for what tags are worth compare one trained with tag dropout, or one without guidance"
    ]
