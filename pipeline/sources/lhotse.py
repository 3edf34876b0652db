"""Lhotse's JSON manifests, cuts and recordings, as rows of a table. (The lines of NeMo's manifests are such rows.)"""

from collections.abc import Mapping
from typing import Any

from pipeline.sources.rows import Fields


def is_lhotse(fields: Mapping[str, Any]) -> bool:
    """Return whether a row is a cut or a recording of Lhotse."""
    return "sources" in fields or isinstance(fields.get("recording"), Mapping)


def from_lhotse(fields: Mapping[str, Any]) -> Fields:
    """Return a cut as {file, start, duration, text}; a recording is a whole file.

    A cut that changes its audio (mixed, resampled, padded) is taken from its recording as that is stored.
    """
    recording = fields.get("recording") or fields
    sources = recording.get("sources") or [{}]
    row: Fields = {"file": sources[0].get("source")}
    if recording is not fields:
        row |= {"start": fields.get("start"), "duration": fields.get("duration")}
        spoken = [part for part in fields.get("supervisions") or () if isinstance(part, Mapping)]
        row["text"] = [part["text"] for part in spoken if part.get("text")]
        for part in (fields, *spoken):
            custom = part.get("custom") or {}
            row |= {name: custom[name] for name in ("labels", "captions", "fold") if name in custom}
    return row
