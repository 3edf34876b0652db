"""The shard format: WebDataset tars that any reader takes, with a ledger and a commit mark beside each.

    <data>/00000.tar           <key>.flac + <key>.json adjacent, in plan order; USTAR, fixed times and owners: same input,
                               same bytes. FLAC is 32 kHz mono 16-bit.
    <data>/00000.parquet       the ledger: one row per planned clip, LEDGER below; written, filtered and failed alike
    <data>/00000_stats.json    in = written + filtered + failed, by reason, sha256 of the tar; published last: commit mark
    <data>/plan.json, plan/<hash>/00000.parquet, ...   which clip goes into which shard (pipeline/planning/tables.py)
    <data>/sizes.json          {"00000.tar": clips}, published when every shard is committed
    <data>/copies/             fingerprints and copies, where these are left out (pipeline/quality/deduplication.py)
    <data>/attempts/           what is being written; gone when the dataset is finished (pipeline/dataset/commit.py)
    <data>/overlays/<name>/00000.parquet   captions, scores (OVERLAY) or verdicts (AUDIT) by key; audio is never rewritten
    <data>/overlays/<name>/overlay.json    where they came from; published last

JSON of a sample: `text` (list of str), `tag` (list of label names), `mids`, `source_id`, `start_s`, `end_s`,
`sample_rate_hz`, `num_samples`, and `captions`: one record per text with score, model, revision, decoding, precision,
tags_given, and the tags that the captioner predicted where those guided it.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from pipeline import storage
from pipeline.dataset import commit
from pipeline.errors import InputError

OVERLAY_FILE = "overlay.json"
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
        ("score", pa.list_(pa.float64())),  # of each caption, the captioner's
        ("tags", pa.list_(pa.string())),
    ]
)
OVERLAY = pa.schema(  # captions or scores
    [
        ("key", pa.string()),
        ("text", pa.list_(pa.string())),  # captions, best first
        ("score", pa.list_(pa.float64())),  # in the same order; overlay.json tells of what
        ("captions", pa.string()),  # JSON: the record of each, as in a sample; null where they are the shard's own
    ]
)
AUDIT = pa.schema(  # verdicts on captions, in the order of `text`
    [
        ("key", pa.string()),
        ("text", pa.list_(pa.string())),
        ("words", pa.list_(pa.int64())),
        ("foreign", pa.list_(pa.list_(pa.string()))),  # events mentioned outside the clip's tags and their relatives
        ("unmentioned", pa.list_(pa.list_(pa.string()))),  # tags left out
        ("uses", pa.list_(pa.int64())),  # clips that share the caption
        ("copy", pa.bool_()),  # an earlier clip has the same samples
    ]
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one planned clip."""

    key: str
    status: Status
    stage: str
    reason: str = ""
    detail: str = ""
    duration_s: float = 0.0
    flac: bytes = b""
    meta: dict[str, Any] = field(default_factory=dict)  # the sample's JSON


def tar_name(shard: int) -> str:
    """Return the tar's name: five digits from 00000."""
    return f"{shard:05d}.tar"


def number_of(tar: str) -> int:
    """Return the number of a shard from the name of its tar."""
    return int(tar.removesuffix(".tar"))


def ledger_name(shard: int) -> str:
    """Return the name of the ledger beside the tar."""
    return f"{shard:05d}.parquet"


def stats_name(shard: int) -> str:
    """Return the name of the commit mark."""
    return f"{shard:05d}_stats.json"


def write(data: str, shard: int, outcomes: Sequence[Outcome], plan_hash: str) -> dict[str, Any]:
    """Publish one shard: tar, ledger and commit mark, of this call or of another that was there first.

    Returns:
        The stats of this call.
    """
    tar = pack([(o.key, o.flac, o.meta) for o in outcomes if o.status == "written"])
    members = {member.name: (member.offset_data, member.size) for member in _members(tar)}
    rows = [_ledger_row(outcome, members) for outcome in outcomes]
    counts = Counter(outcome.status for outcome in outcomes)
    stats = {
        "shard": shard,
        "plan_hash": plan_hash,
        "in": len(outcomes),
        **{status: counts[status] for status in ("written", "filtered", "failed")},
        "reasons": dict(sorted(Counter(o.reason for o in outcomes if o.reason).items())),
        "duration_s": round(sum(o.duration_s for o in outcomes if o.status == "written"), 3),
        "tar_size": len(tar),
        "tar_sha256": hashlib.sha256(tar).hexdigest(),
    }
    ledger = storage.table_bytes(pa.Table.from_pylist(rows, schema=LEDGER))
    files = {tar_name(shard): tar, ledger_name(shard): ledger, stats_name(shard): storage.json_bytes(stats)}
    commit.publish(data, f"{shard:05d}", files)
    return stats


def member(tar: bytes, row: dict[str, Any], kind: Literal["flac", "json"]) -> bytes:
    """Return one file of a clip from the bytes of its tar, given the clip's ledger row."""
    offset: int = row[f"{kind}_offset"]
    return tar[offset : offset + row[f"{kind}_size"]]


def committed(data: str) -> list[int]:
    """Return the numbers of the shards whose commit mark is there."""
    found = (re.fullmatch(r"(\d{5,})_stats\.json", name) for name in storage.list_names(data))
    return sorted(int(match[1]) for match in found if match)


def read_stats(data: str, shard: int) -> dict[str, Any]:
    """Read one commit mark."""
    stats: dict[str, Any] = storage.read_json(storage.join(data, stats_name(shard)))
    return stats


def finished(data: str) -> bool:
    """Tell whether a folder is a dataset that `pipeline caption` finished."""
    return all(storage.exists(storage.join(data, name)) for name in ("plan.json", "run.json", "sizes.json"))


def origin(data: str) -> dict[str, Any]:
    """Return where a dataset comes from: its plan hash, and the resolved config and captioner revision that made it."""
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
    if foreign := [name for name in names if not re.fullmatch(r"\d{5,}\.tar", name)]:
        raise FileNotFoundError(f"{data} holds {foreign[0]}: tars of another maker")
    return dict(sorted((number_of(name), clips) for name, clips in names.items()))


class ClipIndex:
    """Random access to every written clip of a dataset, through the ledgers.

    Raises:
        FileNotFoundError: when `data` is no finished dataset of shards.
    """

    def __init__(self, data: str) -> None:
        self.data = storage.resolve(data)
        tables = []
        for shard in sizes(self.data):
            ledger = storage.read_table(storage.join(self.data, ledger_name(shard)))
            tables.append(ledger.append_column("shard", pa.array([shard] * len(ledger), pa.int32())))
        self.shards = [int(ledger["shard"][0].as_py()) for ledger in tables if len(ledger)]
        whole = pa.concat_tables(tables)
        self.ledger = whole
        self.written = whole.filter(pa.compute.equal(whole["status"], "written")).combine_chunks()
        self.keys: list[str] = self.written["key"].to_pylist()

    def __len__(self) -> int:
        return len(self.keys)

    def texts(self) -> list[list[str]]:
        """Return the captions of every clip, in index order."""
        texts: list[list[str]] = self.written["text"].to_pylist()
        return texts

    def tags(self) -> list[list[str]]:
        """Return the tags of every clip, in index order."""
        tags: list[list[str]] = self.written["tags"].to_pylist()
        return tags

    def flac(self, index: int) -> bytes:
        """Read the FLAC bytes of one clip."""
        return self._member(index, "flac")

    def meta(self, index: int) -> dict[str, Any]:
        """Read the JSON of one clip."""
        meta: dict[str, Any] = json.loads(self._member(index, "json"))
        return meta

    def _member(self, index: int, suffix: str) -> bytes:
        shard, offset, size = (self.written[n][index].as_py() for n in ("shard", f"{suffix}_offset", f"{suffix}_size"))
        return storage.read(storage.join(self.data, tar_name(shard)), offset, size)


def overlay_folder(data: str, name: str) -> str:
    """Return the folder of an overlay."""
    return storage.join(storage.resolve(data), "overlays", name)


def check_overlay_name(name: str) -> None:
    """Raise InputError for a name that cannot be a folder's."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError("--name", name, "use letters, digits, - and _, such as round1")


def read_rows(data: str, shard: int, captions: str = "") -> list[dict[str, Any]]:
    """Read the ledger rows of a shard's written clips, with the captions of an overlay where one is named."""
    ledger = storage.read_table(storage.join(data, ledger_name(shard))).to_pylist()
    rows = [row for row in ledger if row["status"] == "written"]
    if not captions:
        return rows
    part = storage.read_table(storage.join(overlay_folder(data, captions), ledger_name(shard)))
    told = {row["key"]: row["text"] for row in part.select(["key", "text"]).to_pylist()}
    return [{**row, "text": told.get(row["key"], [])} for row in rows]


def check_captions(data: str, name: str) -> None:
    """Raise InputError when an overlay of captions is named and is not there, whole."""
    if name and not storage.exists(storage.join(overlay_folder(data, name), OVERLAY_FILE)):
        have = storage.list_names(storage.join(storage.resolve(data), "overlays"))
        raise InputError("--captions", name, f"no such overlay in {data}; it has {have}")


def read_overlay(data: str, name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Read an overlay: ({key: row of OVERLAY}, its overlay.json). Raises FileNotFoundError when it is not complete."""
    folder = overlay_folder(data, name)
    about = storage.read_json(storage.join(folder, OVERLAY_FILE))
    parts = [storage.join(folder, part) for part in storage.list_names(folder) if part.endswith(".parquet")]
    rows = (row for part in parts for row in storage.read_table(part).to_pylist())
    return {row["key"]: row for row in rows}, about


def pack(samples: Sequence[tuple[str, bytes, dict[str, Any]]]) -> bytes:
    """Return a tar of samples: key, FLAC and JSON of each."""
    import webdataset  # here: it imports torch, which the reading of shards and the command line can do without

    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, user="blat", group="blat", mtime=0, format=tarfile.USTAR_FORMAT) as writer:
        for key, flac, meta in samples:
            text = json.dumps(meta, ensure_ascii=False, sort_keys=True)
            writer.write({"__key__": key, "flac": flac, "json": text.encode()})
    return buffer.getvalue()


def _members(tar: bytes) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        yield from file


def _ledger_row(outcome: Outcome, members: dict[str, tuple[int, int]]) -> dict[str, Any]:
    flac = members.get(f"{outcome.key}.flac", (-1, -1))
    meta = members.get(f"{outcome.key}.json", (-1, -1))
    return {
        **{name: getattr(outcome, name) for name in ("key", "status", "stage", "reason", "detail", "duration_s")},
        "flac_offset": flac[0],
        "flac_size": flac[1],
        "json_offset": meta[0],
        "json_size": meta[1],
        "sha256": hashlib.sha256(outcome.flac).hexdigest() if outcome.status == "written" else "",
        "text": outcome.meta.get("text", []),
        "score": [caption["score"] for caption in outcome.meta.get("captions", [])],
        "tags": outcome.meta.get("tag", []),
    }
