"""What the graph asks of a captioner: a batch of clips -> the captions of each.

Shapes: B = clips of a batch, T = samples that the captioner takes of a clip, at 32 kHz.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pipeline.graph.shard_batch import CaptionRow, Samples


class ClipBatch(NamedTuple):
    """The clips of one call."""

    keys: list[str]
    tags: list[list[str]]
    other_tags: list[list[str]]  # those of another clip of the shard, as a control
    waveform: Samples  # (B, T) int16, zero-padded; possibly memory that cannot be written to
    num_samples: list[int]  # true lengths, at most T


class CaptionedBatch(NamedTuple):
    """The captions of one call."""

    captions: list[list[CaptionRow]]  # of each clip, best first
    busy_s: float  # in which the model worked


class Captioner(Protocol):
    """A model that captions clips. Two threads call it, so that one prepares a batch while the other uses the model."""

    clip_samples: int  # T

    def reject(self, tags: Sequence[str]) -> tuple[str, str] | None:
        """Return why a clip with these tags cannot be captioned, as a reason and its detail, or None."""
        ...

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """Caption clips, in their order."""
        ...
