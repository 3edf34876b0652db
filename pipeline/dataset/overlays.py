"""Overlays: captions, scores or an audit that were added to a finished dataset. Audio is never rewritten.

<data>/overlays/<name>/00000.parquet   the rows of a shard's written clips: CAPTIONS_SCHEMA or AUDIT_SCHEMA
<data>/overlays/<name>/overlay.json    which stage made it, from what; published last
"""

from collections.abc import Iterator
from typing import Any, TypedDict

import pyarrow as pa

from pipeline import storage
from pipeline.dataset import shards
from pipeline.errors import InputError

FOLDER = "overlays"
MARK_FILE = "overlay.json"
CAPTIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.list_(pa.string())),  # captions, best first
        ("score", pa.list_(pa.float64())),  # in the same order; overlay.json names what they are scores of; may be null
        ("captions", pa.string()),  # JSON: `CaptionRecord` of each, in any order; null where they are the shard's own
    ]
)
AUDIT_SCHEMA = pa.schema(  # lists in the order of `text`
    [
        ("key", pa.string()),
        ("text", pa.list_(pa.string())),
        ("words", pa.list_(pa.int64())),
        ("foreign", pa.list_(pa.list_(pa.string()))),  # `Verdict.hallucinated_events`
        ("unmentioned", pa.list_(pa.list_(pa.string()))),  # `Verdict.omitted_tags`
        ("uses", pa.list_(pa.int64())),  # clips that share the caption
        ("copy", pa.bool_()),  # an earlier clip has the same samples
    ]
)


class CaptionsRow(TypedDict):
    """The captions of one clip: a row of CAPTIONS_SCHEMA."""

    key: str
    text: list[str]
    score: list[float | None]
    captions: str | None


class AuditRow(TypedDict):
    """The verdicts on the captions of one clip: a row of AUDIT_SCHEMA."""

    key: str
    text: list[str]
    words: list[int]
    foreign: list[list[str]]
    unmentioned: list[list[str]]
    uses: list[int]
    copy: bool


def folder(data: str, name: str) -> str:
    """Return the folder of an overlay."""
    return storage.join(storage.resolve(data), FOLDER, name)


def check_name(name: str) -> None:
    """Raise InputError for a name that cannot be a folder's."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError("--name", name, "use letters, digits, - and _, such as round1")


def check_exists(data: str, name: str, flag: str = "--captions", remedy: str = "") -> None:
    """Raise InputError when an overlay is named and is absent or not complete."""
    if name and not storage.exists(storage.join(folder(data, name), MARK_FILE)):
        names = storage.list_names(storage.join(storage.resolve(data), FOLDER))
        raise InputError(flag, name, f"no such overlay in {data}; it has {names}{remedy and f', {remedy}'}")


def read_info(data: str, name: str) -> dict[str, Any]:
    """Read the overlay.json of an overlay. Raises FileNotFoundError when the overlay is not complete."""
    info: dict[str, Any] = storage.read_json(storage.join(folder(data, name), MARK_FILE))
    return info


def read_captions(data: str, name: str) -> dict[str, CaptionsRow]:
    """Read all rows of an overlay of captions, by key."""
    return {row["key"]: row for row in read_rows(data, name)}


def read_audit(data: str, name: str) -> dict[str, AuditRow]:
    """Read all rows of an audit, by key."""
    return {row["key"]: row for row in read_rows(data, name)}


def read_part(data: str, name: str, shard: int) -> Any:
    """Read the rows of one shard, by key; none where an overlay has no part for a shard without written clips."""
    try:
        table = storage.read_table(storage.join(folder(data, name), shards.ledger_name(shard)))
    except FileNotFoundError:
        return {}
    return {row["key"]: row for row in table.to_pylist()}


def read_clips(data: str, shard: int, captions: str = "") -> list[shards.ClipRow]:
    """Read the ledger rows of a shard's written clips, with the captions of an overlay where one is named."""
    ledger = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
    rows: list[shards.ClipRow] = [row for row in ledger if row["status"] == "written"]
    if not captions:
        return rows
    part = storage.read_table(storage.join(folder(data, captions), shards.ledger_name(shard)))
    texts = dict(zip(part["key"].to_pylist(), part["text"].to_pylist(), strict=True))
    return [{**row, "text": texts.get(row["key"], [])} for row in rows]


def read_rows(data: str, name: str) -> Iterator[Any]:
    """Yield all rows of an overlay, one part in memory at a time."""
    where = folder(data, name)
    for part in storage.list_names(where):
        if part.endswith(".parquet"):
            yield from storage.read_table(storage.join(where, part)).to_pylist()
