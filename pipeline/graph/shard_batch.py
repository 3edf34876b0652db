"""A shard on its way through the graph: an Arrow table of one row that holds the clips of the shard.

Shapes: T = samples that the captioner takes of a clip.
"""

from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset import phrases
from pipeline.dataset.phrases import Phrase
from pipeline.planning.tables import FULL_SCHEMA, PlanRow

Samples = npt.NDArray[np.int16]
CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("score", pa.float64()),
        ("guidance", pa.string()),
        ("decoding", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("prompt", pa.string()),
    ]
)
CLIP = pa.struct(
    [
        *FULL_SCHEMA,
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("num_samples", pa.int64()),
        ("flac_offset", pa.int64()),
        ("flac_size", pa.int64()),
        ("captions", pa.list_(CAPTION)),
        ("phrases", phrases.TYPE),
    ]
)
SHARD = pa.schema(
    [
        ("shard", pa.int32()),
        ("clips", pa.list_(CLIP)),
        ("audio", pa.string()),
        ("waveforms", pa.large_list(pa.int16())),
        ("actor", pa.string()),
        ("busy_s", pa.float64()),
        ("captioning", pa.map_(pa.string(), pa.int64())),
    ]
)


class CaptionRow(TypedDict):
    """A caption that was made: a value of CAPTION."""

    text: str
    score: float | None  # mean log-probability per word; None where the captioner gives none
    guidance: str  # tags, predicted, none or shuffled
    decoding: str
    tags: list[str] | None  # that guided it; None without guidance
    prompt: NotRequired[str | None]  # hash of the instruction, before tags are filled in; None without one


class ClipRow(PlanRow, total=False):
    """A planned clip and what became of it so far: a value of CLIP."""

    status: Literal["ready", "filtered", "failed"]  # ready: nothing keeps it from being written so far
    stage: str  # where it ended: plan, read or caption
    reason: str  # one word
    detail: str
    num_samples: int
    flac_offset: int  # in the file that `ShardBatch.audio` names
    flac_size: int
    captions: list[CaptionRow] | None
    phrases: list[Phrase] | None  # that a tagger found, with their times


@dataclass(kw_only=True)
class ShardBatch:
    """One shard between two steps."""

    shard: int
    clips: list[ClipRow]
    audio: str = ""
    """URI of the file that holds the FLAC of the clips."""
    waveforms: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    """What the captioner takes of each clip that was read, one after the other; empty where the actor decodes."""
    actor: str = ""
    """Name of the actor that made the captions."""
    busy_s: float = 0.0
    """Seconds in which its model worked on the shard."""
    captioning: dict[str, int] = field(default_factory=dict)
    """What the captioner counted, such as requests and what was cut from its captions."""

    def to_table(self) -> pa.Table:
        """Return a table of SHARD; it shares the memory of the waveforms."""
        values = {
            "shard": self.shard,
            "clips": self.clips,
            "audio": self.audio,
            "actor": self.actor,
            "busy_s": self.busy_s,
            "captioning": list(self.captioning.items()),
        }
        columns = {name: pa.array([value], SHARD.field(name).type) for name, value in values.items()}
        ends = pa.array([0, len(self.waveforms)], pa.int64())
        columns["waveforms"] = pa.LargeListArray.from_arrays(ends, pa.array(self.waveforms))
        return pa.table(columns, schema=SHARD)

    @classmethod
    def from_table(cls, table: pa.Table) -> "ShardBatch":
        """Return the shard in a table of SHARD; the waveforms are a view of its memory."""
        row = table.drop_columns(["waveforms"]).to_pylist()[0]
        (waveforms,) = (chunk.flatten() for chunk in table["waveforms"].chunks if len(chunk))
        row["captioning"] = dict(row["captioning"])
        return cls(**row, waveforms=waveforms.to_numpy(zero_copy_only=True))


def end_clip(
    row: PlanRow | ClipRow, status: Literal["filtered", "failed"], stage: str, reason: str, detail: str
) -> ClipRow:
    """Return a clip that goes no further, and why."""
    clip = cast("ClipRow", {**row})
    clip["status"], clip["stage"], clip["reason"], clip["detail"] = status, stage, reason, detail
    return clip


class Waveforms:
    """Collects what the captioner takes of each clip: clips of one shard are decoded by several threads."""

    def __init__(self, num_clips: int, num_samples: int) -> None:
        """Make room for `num_samples` of each clip; memory is used only where something is put."""
        self.slots, self.lengths = np.empty((num_clips, num_samples), np.int16), [0] * num_clips

    def put(self, index: int, samples: Samples) -> None:
        """Copy a clip (T',), cut to T."""
        cut = samples[: self.slots.shape[1]]
        self.lengths[index] = len(cut)
        self.slots[index, : len(cut)] = cut

    def joined(self) -> Samples:
        """Return the clips one after the other, in their order; the object is of no use afterwards."""
        flat, end = self.slots.reshape(-1), 0
        for index, length in enumerate(self.lengths):
            start = index * self.slots.shape[1]
            if start != end:
                flat[end : end + length] = flat[start : start + length]
            end += length
        return flat[:end]
