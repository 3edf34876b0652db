"""A shard on its way through the graph: an Arrow table of one row that holds the clips of the shard."""

from typing import Literal, TypedDict, cast

import pyarrow as pa

from pipeline.planning.tables import SCHEMA, PlanRow

CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("score", pa.float64()),
        ("guidance", pa.string()),
        ("decoding", pa.string()),
        ("tags", pa.list_(pa.string())),
    ]
)
CLIP = pa.struct(
    [
        *SCHEMA,
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("num_samples", pa.int64()),
        ("flac", pa.large_binary()),
        ("samples", pa.large_binary()),
        ("captions", pa.list_(CAPTION)),
    ]
)
SHARD = pa.schema([("shard", pa.int32()), ("clips", pa.list_(CLIP)), ("actor", pa.string()), ("busy_s", pa.float64())])


class CaptionRow(TypedDict):
    """A caption that was made: a value of CAPTION."""

    text: str
    score: float  # mean log-probability per word
    guidance: str  # tags, predicted or none
    decoding: str
    tags: list[str] | None  # that guided it; None without guidance


class ClipRow(PlanRow, total=False):
    """A planned clip and what became of it so far: a value of CLIP."""

    status: Literal["ready", "filtered", "failed"]  # ready: nothing keeps it from being written so far
    stage: str  # where it ended: plan, read or caption
    reason: str  # one word
    detail: str
    num_samples: int
    flac: bytes
    samples: bytes | None  # int16, cut to the length of the model's input; only where the reader decodes for the actor
    captions: list[CaptionRow] | None


def end_clip(
    row: PlanRow | ClipRow, status: Literal["filtered", "failed"], stage: str, reason: str, detail: str
) -> ClipRow:
    """Return a clip that goes no further, and why."""
    clip = cast("ClipRow", {**row})
    clip["status"], clip["stage"], clip["reason"], clip["detail"] = status, stage, reason, detail
    return clip


def pack(shard: int, clips: list[ClipRow], actor: str = "", busy_s: float = 0.0) -> pa.Table:
    """Return the batch of a shard; `actor` made its captions, and its model worked for `busy_s` seconds."""
    return pa.Table.from_pylist([{"shard": shard, "clips": clips, "actor": actor, "busy_s": busy_s}], schema=SHARD)


def unpack(batch: pa.Table) -> tuple[int, list[ClipRow]]:
    """Return the number of a shard and its clips."""
    (shard,) = batch["shard"].to_pylist()
    return shard, batch["clips"].combine_chunks().flatten().to_pylist()
