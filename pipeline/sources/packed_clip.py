"""Clips of packed audio, from the JSON of a sample or the row of a Parquet file."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.sources import audioset, columns
from pipeline.sources.clip import Clip, find_recording_id, key_of
from pipeline.sources.tables import Options, text_of, texts

MID_STARTS = ("/m/", "/g/", "/t/")
LINKS = ("origin", *columns.ROLES["source"], "source")
NO_SEPARATOR = "\0"  # texts of packed audio are single ones or lists


def packed_clip(uri: str, name: str, fields: Mapping[str, Any], options: Options, **location: Any) -> Clip:
    """Return the clip that a row or a sample's JSON describes.

    Args:
        uri: the file that holds its bytes.
        name: of the sample or row, for a clip without a YouTube id.
        fields: the row.
        options: --columns, and the prefix of keys that are made of names.
        location: fields of `Clip` that locate its bytes, and its fault and note.
    """
    renamed = columns.renamed(fields, options.columns)
    labels = first(renamed, columns.ROLES["labels"], without=MID_STARTS)
    mids = [label for label in _list(renamed.get("mids") or renamed.get("labels")) if label.startswith(MID_STARTS)]
    youtube = next(filter(None, (text_of(renamed.get(column)) for column in columns.ROLES["youtube"])), "")
    start_s, end_s = times(renamed)
    key = f"Y{audioset.slug(youtube)}" if youtube else key_of(name)
    if youtube and start_s is not None:
        key = key_of(f"{key}_{round(start_s * 1000)}" + (f"_{round(end_s * 1000)}" if end_s else ""))
    if options.prefix and not youtube:
        key = key_of(f"{options.prefix}_{key}")
    links = " ".join(filter(None, (text_of(renamed.get(column)) for column in LINKS)))
    return Clip(
        key=key,
        uri=uri,
        source_id=text_of(renamed.get("source_id")) or youtube or name,
        recording_id=f"youtube:{youtube}" if youtube else find_recording_id(links),
        start_s=start_s or 0.0,
        end_s=end_s,
        tags=tuple(label.replace("_", " ") for label in labels),
        mids=tuple(mids),
        captions=tuple(first(renamed, ("text", *columns.ROLES["captions"]))),
        fold=next((fold for column in columns.ROLES["fold"] if (fold := text_of(renamed.get(column)))), ""),
        **location,
    )


def damaged(uri: str, part: str, fault: str) -> Clip:
    """Return a clip with a fault, which stands for the damaged part of a packed file."""
    name = uri.rpartition("/")[2]
    return Clip(key=key_of(f"{name}_{part}".strip(" _")), uri=uri, source_id=f"{part}{name}", fault=fault)


def times(fields: Mapping[str, Any]) -> tuple[float | None, float]:
    """Return the start of a clip in its recording, None where it is not listed, and the end, 0 where not; seconds."""
    start_s, end_s, duration_s = (
        next((value for name in columns.ROLES[role] if (value := _seconds(fields.get(name))) is not None), None)
        for role in ("start", "end", "duration")
    )
    if end_s is None and start_s is not None and duration_s is not None:
        end_s = start_s + duration_s
    return start_s, end_s or 0.0


def first(fields: Mapping[str, Any], names: Iterable[str], without: tuple[str, ...] = ()) -> list[str]:
    """Return the texts of the first field that has some; texts that begin with one of `without` do not count."""
    for name in names:
        if found := [text for text in _list(fields.get(name)) if not text.startswith(without)]:
            return found
    return []


def _list(value: Any) -> list[str]:
    return texts(value, NO_SEPARATOR)


def _seconds(value: Any) -> float | None:
    try:
        seconds = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
