"""JSON manifests of speech toolkits as rows of a table: Lhotse's cuts and recordings; NeMo's lines are such rows already."""

from collections.abc import Mapping
from typing import Any


def is_lhotse(fields: Mapping[str, Any]) -> bool:
    """Return whether a row is a cut or a recording of Lhotse."""
    return "sources" in fields or isinstance(fields.get("recording"), Mapping)


def from_lhotse(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cut as {file, start, duration, text}; a recording is a whole file.

    A cut that changes its audio (mixed, resampled, padded) is taken from its recording as that is stored.
    """
    recording = fields.get("recording") or fields
    sources = recording.get("sources") or [{}]
    row: dict[str, Any] = {"file": sources[0].get("source")}
    if recording is not fields:
        row |= {"start": fields.get("start"), "duration": fields.get("duration")}
        spoken = [part for part in fields.get("supervisions") or () if isinstance(part, Mapping)]
        row["text"] = [part["text"] for part in spoken if part.get("text")]
        own = [part.get("custom") or {} for part in (fields, *spoken)]
        row |= {name: value for each in own for name, value in each.items() if name in ("labels", "captions", "fold")}
    return row
