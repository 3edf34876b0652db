"""What the graph asks of a captioner: a batch of clips -> the captions of each.

Shapes: B = clips of a batch, T = samples that the captioner takes of a clip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pipeline.graph.shard_batch import CaptionRow, Samples


class ClipBatch(NamedTuple):
    """The clips of one call."""

    keys: list[str]
    tags: list[list[str]]
    other_tags: list[list[str]]  # those of another clip of the shard, as a control
    waveform: Samples  # (B, T) int16, zero-padded; possibly memory that cannot be written to
    num_samples: list[int]  # true lengths, at most T
    rate_hz: int
    shard: int  # number of the shard that the clips are of
    texts: list[list[str]]  # captions or titles that the clips have already, where captions are written from them


class CaptionedBatch(NamedTuple):
    """The captions of one call."""

    captions: list[list[CaptionRow]]  # of each clip, best first
    busy_s: float  # in which the model worked
    failed: Mapping[str, tuple[str, str]] = {}  # clips without captions, by key: reason and its detail
    counts: Mapping[str, int] = {}  # what the statistics of a shard add up, such as requests


@dataclass(frozen=True, kw_only=True)
class CaptionerInfo:
    """What a job knows of its captioner before any actor starts."""

    captioner: str
    """What `--captioner` comes to: an absolute folder, or a name with the commit of the hub."""
    revision: str
    """What fixes the weights: a hash, a commit, or the name of a served model."""
    clip_s: float
    """Seconds of a clip, from its start, that the captioner takes."""
    has_score: bool
    """Whether its captions have scores."""
    identity: Mapping[str, object] = field(default_factory=dict)
    """What else decides the captions, as run.json names it."""


def distinct(captions: Sequence[CaptionRow]) -> list[CaptionRow]:
    """Return the records of captions in the order in which they were made; of those with one text the first stays."""
    first: dict[str, CaptionRow] = {}
    for record in captions:
        first.setdefault(record["text"], record)
    return list(first.values())


class ClipFilter(NamedTuple):
    """Which clips a captioner takes, by their tags and texts."""

    needs_tag: bool = False
    any_of: frozenset[str] | None = None  # a clip needs one of these; None: it needs none of them
    needs_text: bool = False

    def passes(self, tags: Sequence[str], texts: Sequence[str]) -> bool:
        """Return whether a clip with these tags and texts is taken."""
        if self.needs_text and not texts:
            return False
        return (bool(tags) or not self.needs_tag) and (self.any_of is None or not self.any_of.isdisjoint(tags))


class Captioner(Protocol):
    """A model that captions clips. Two threads call it, so that one prepares a batch while the other uses the model."""

    clip_samples: int  # T

    def reject(self, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
        """Return why a clip with these tags and texts cannot be captioned, as a reason and its detail, or None."""
        ...

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """Caption clips, in their order."""
        ...
