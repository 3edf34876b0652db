"""Clips with the captions that `pipeline assign` chose for them, to train on; their audio stays where and as it is.

<out>/assigned.parquet   a row for each clip: the fields of `Clip`, captions as often as they are probable
<out>/assigned.json      model and texts that chose the captions, and counts; published last
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.sources.clip import Clip

TABLE_FILE, MARK_FILE = "assigned.parquet", "assigned.json"
TYPES: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
}
NOT_KEPT = "events"  # field of a Clip
SCHEMA = pa.schema([(each.name, TYPES[each.type]) for each in dataclasses.fields(Clip) if each.name != NOT_KEPT])


def exists(uri: str) -> bool:
    """Return whether a folder holds a finished assignment."""
    return storage.exists(storage.join(uri, MARK_FILE)) and storage.exists(storage.join(uri, TABLE_FILE))


def write(uri: str, clips: Sequence[Clip], info: Mapping[str, object]) -> None:
    """Publish clips with their captions; `info` becomes assigned.json."""
    rows = [dataclasses.asdict(clip) for clip in clips]
    storage.publish_table(storage.join(uri, TABLE_FILE), pa.Table.from_pylist(rows, schema=SCHEMA))
    storage.publish_json(storage.join(uri, MARK_FILE), info)


def read(uri: str) -> list[Clip]:
    """Read the clips."""
    rows: list[dict[str, Any]] = storage.read_table(storage.join(uri, TABLE_FILE)).to_pylist()
    return [_clip(row) for row in rows]


def _clip(row: dict[str, Any]) -> Clip:
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return Clip(**(row | lists))


def read_info(uri: str) -> dict[str, Any]:
    """Read assigned.json."""
    info: dict[str, Any] = storage.read_json(storage.join(uri, MARK_FILE))
    return info
