"""The shard format: WebDataset tars that any reader takes, with a ledger and a commit mark beside each.

<data>/00000.tar           <key>.flac + <key>.json adjacent, in plan order; USTAR, fixed times and users: same input,
                           same bytes. FLAC is 32 kHz mono 16-bit. The JSON of a sample is a `SampleMeta`.
<data>/00000.parquet       the ledger: one row per planned clip, LEDGER below; written, filtered and failed alike
<data>/00000_stats.json    in = written + filtered + failed, by reason, sha256 of the tar; published last: commit mark
<data>/plan.json, plan/<hash>/00000.parquet, ...   which clip goes into which shard (pipeline/planning/tables.py)
<data>/sizes.json          {"00000.tar": clips}, published when every shard is committed
<data>/copies/             fingerprints and copies, where these are left out (pipeline/quality/deduplication.py)
<data>/attempts/           what is being written (pipeline/dataset/commit.py, staging.py); gone when the dataset is finished
<data>/overlays/<name>/    captions, scores or an audit by key; audio is never rewritten (pipeline/dataset/overlays.py)
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import pyarrow as pa

from pipeline import storage
from pipeline.dataset import commit, phrases, tar
from pipeline.dataset.phrases import Phrase
from pipeline.dataset.shard_stats import ShardStats
from pipeline.dataset.tar import Buffer

Status = Literal["written", "filtered", "failed"]
LEDGER = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),  # written, filtered, failed
        ("stage", pa.string()),  # where it ended: read, caption, write
        ("reason", pa.string()),  # one word; empty when written
        ("detail", pa.string()),  # the message behind the reason
        ("duration_s", pa.float64()),
        ("flac_offset", pa.int64()),  # bytes into the tar; -1 when not written
        ("flac_size", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_size", pa.int64()),
        ("sha256", pa.string()),  # of the FLAC member
        ("text", pa.list_(pa.string())),
        ("score", pa.list_(pa.float64())),  # of each caption, the captioner's; null where it gives none
        ("tags", pa.list_(pa.string())),
    ]
)


PHRASES = "phrases"
TIMED_LEDGER = LEDGER.append(
    pa.field(PHRASES, phrases.TYPE)
)  # of a dataset with --timed; null where no times are known


class ClipRow(TypedDict):
    """A row of the ledger: what became of one planned clip, and where it lies in the tar."""

    key: str
    status: Status
    stage: str
    reason: str
    detail: str
    duration_s: float
    flac_offset: int
    flac_size: int
    json_offset: int
    json_size: int
    sha256: str
    text: list[str]
    score: list[float | None]
    tags: list[str]
    phrases: NotRequired[list[Phrase] | None]


class CaptionRecord(TypedDict):
    """How one caption was made."""

    text: str
    score: float | None  # mean log-probability per word, by the captioner; None where it gives none
    model: str  # name of the captioner's folder, or of its model
    revision: str  # hash of its weights, or commit of the hub
    decoding: str  # such as beam 3
    precision: str  # float32 or bfloat16; served where an endpoint decides
    tags_given: bool  # whether the clip's tags guided the captioner
    predicted_tags: NotRequired[str]  # the tags that the captioner predicted, where those guided it, joined by |
    shuffled_tags: NotRequired[str]  # the tags of another clip, where those guided it, joined by |
    prompt: NotRequired[str]  # hash of the instruction to the captioner, before tags are filled in


class SampleMeta(TypedDict, total=False):
    """The JSON of a sample. Samples of early datasets lack the fields that were added since."""

    text: list[str]  # captions, best first
    tag: list[str]  # display names of the labels
    mids: list[str]
    source_id: str
    origin: str  # `Clip.recording_id`
    start_s: float
    end_s: float
    sample_rate_hz: int
    num_samples: int
    captions: list[CaptionRecord]  # one for each text
    phrases: list[Phrase]  # what sounds when, with --timed, where it is known
    phrases_from: str  # `labels` of the source, or the revision of the tagger


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one planned clip."""

    key: str
    status: Status
    stage: str
    reason: str = ""
    detail: str = ""
    duration_s: float = 0.0
    flac: Buffer = b""
    meta: SampleMeta = field(default_factory=SampleMeta)


class Position(NamedTuple):
    """Where the files of a clip lie in a tar; the fields are those of a ledger row."""

    flac_offset: int
    flac_size: int
    json_offset: int
    json_size: int


NOWHERE = Position(-1, -1, -1, -1)


class PackedShard(NamedTuple):
    """The tar of a shard, and the position of each sample in it."""

    tar: tar.Tar
    positions: list[Position]


def tar_name(shard: int) -> str:
    """Return the tar's name: five digits from 00000."""
    return f"{shard:05d}.tar"


def number_of(name: str) -> int:
    """Return the number of a shard from the name of its tar."""
    return int(name.removesuffix(".tar"))


def ledger_name(shard: int) -> str:
    """Return the name of the ledger beside the tar."""
    return f"{shard:05d}.parquet"


def stats_name(shard: int) -> str:
    """Return the name of the commit mark."""
    return f"{shard:05d}_stats.json"


def write(
    data: str,
    shard: int,
    outcomes: Sequence[Outcome],
    plan_hash: str,
    captioning: Mapping[str, int] | None = None,
    timed: bool = False,
) -> ShardStats:
    """Publish one shard: tar, ledger and commit mark. Does nothing where another writer has published it.

    Args:
        data: the dataset.
        shard: its number.
        outcomes: what became of its clips, in plan order.
        plan_hash: of the plan or retry that the shard belongs to.
        captioning: what the captioner counted.
        timed: whether the ledger has a column of phrases.

    Returns:
        The stats of this call.
    """
    packed = pack([(o.key, o.flac, o.meta) for o in outcomes if o.status == "written"])
    positions = iter(packed.positions)
    schema = TIMED_LEDGER if timed else LEDGER
    rows = [_ledger_row(o, next(positions) if o.status == "written" else NOWHERE) for o in outcomes]
    counts = Counter(outcome.status for outcome in outcomes)
    stats = ShardStats(
        shard=shard,
        plan_hash=plan_hash,
        num_clips=len(outcomes),
        written=counts["written"],
        filtered=counts["filtered"],
        failed=counts["failed"],
        reasons=dict(sorted(Counter(o.reason for o in outcomes if o.reason).items())),
        duration_s=round(sum(o.duration_s for o in outcomes if o.status == "written"), 3),
        tar_size=packed.tar.size,
        tar_sha256=packed.tar.sha256(),
        captioning=dict(sorted((captioning or {}).items())),
    )
    ledger = storage.table_bytes(pa.Table.from_pylist(rows, schema=schema))
    mark = storage.json_bytes(stats.to_json())
    names = tar_name(shard), ledger_name(shard), stats_name(shard)
    files: list[list[Buffer]] = [packed.tar.parts, [ledger], [mark]]
    commit.publish(data, f"{shard:05d}", dict(zip(names, files, strict=True)))
    return stats


def member(data: bytes, row: ClipRow, kind: Literal["flac", "json"]) -> bytes:
    """Return one file of a clip from the bytes of its tar, given the clip's ledger row."""
    if kind == "flac":
        offset, size = row["flac_offset"], row["flac_size"]
    else:
        offset, size = row["json_offset"], row["json_size"]
    return data[offset : offset + size]


def committed(data: str) -> list[int]:
    """Return the numbers of the shards that have a commit mark."""
    found = (re.fullmatch(r"(\d{5,})_stats\.json", name) for name in storage.list_names(data))
    return sorted(int(match[1]) for match in found if match)


def is_committed(data: str, shard: int) -> bool:
    """Return whether a shard has its commit mark."""
    return storage.exists(storage.join(data, stats_name(shard)))


def read_stats(data: str, shard: int) -> ShardStats:
    """Read one commit mark."""
    return ShardStats.from_json(storage.read_json(storage.join(data, stats_name(shard))))


def finished(data: str) -> bool:
    """Return whether a folder is a dataset that `pipeline caption` finished."""
    return all(storage.exists(storage.join(data, name)) for name in ("plan.json", "run.json", "sizes.json"))


def is_timed(data: str) -> bool:
    """Return whether a dataset was made with --timed."""
    run = storage.join(data, "run.json")
    return storage.exists(run) and bool(storage.read_json(run).get("timed"))


def provenance(data: str) -> dict[str, Any]:
    """Return the provenance of a dataset: its plan hash, and the resolved config and captioner revision that made it."""
    return {
        "plan_hash": storage.read_json(storage.join(data, "plan.json"))["hash"],
        "generation": storage.read_json(storage.join(data, "run.json")),
    }


def sizes(data: str) -> dict[int, int]:
    """Return the number of clips of each shard of a finished dataset, in order.

    Raises:
        FileNotFoundError: when `data` is no finished dataset of shards.
    """
    uri = storage.join(storage.resolve(data), "sizes.json")
    if not storage.exists(uri):
        raise FileNotFoundError(f"{data} has no sizes.json: no finished dataset of shards")
    names = storage.read_json(uri)
    if other := next((name for name in names if not re.fullmatch(r"\d{5,}\.tar", name)), ""):
        raise FileNotFoundError(f"{data} holds {other}: tars of another maker")
    return dict(sorted((number_of(name), clips) for name, clips in names.items()))


def pack(samples: Sequence[tuple[str, Buffer, SampleMeta]]) -> PackedShard:
    """Return a tar of samples: key, FLAC and JSON of each."""
    texts = [json.dumps(meta, ensure_ascii=False, sort_keys=True).encode() for _, _, meta in samples]
    members = [
        member
        for (key, flac, _), text in zip(samples, texts, strict=True)
        for member in ((f"{key}.flac", flac), (f"{key}.json", text))
    ]
    packed = tar.pack(members)
    positions = [
        Position(flac_offset, len(flac), json_offset, len(text))
        for flac_offset, json_offset, (_, flac, _), text in zip(
            packed.offsets[::2], packed.offsets[1::2], samples, texts, strict=True
        )
    ]
    return PackedShard(packed, positions)


def _ledger_row(outcome: Outcome, position: Position) -> ClipRow:
    return {
        "key": outcome.key,
        "status": outcome.status,
        "stage": outcome.stage,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "duration_s": outcome.duration_s,
        **position._asdict(),  # type: ignore[typeddict-item]
        "sha256": hashlib.sha256(outcome.flac).hexdigest() if outcome.status == "written" else "",
        "text": outcome.meta.get("text", []),
        "score": [caption["score"] for caption in outcome.meta.get("captions", [])],
        "tags": outcome.meta.get("tag", []),
        "phrases": outcome.meta.get("phrases"),
    }
