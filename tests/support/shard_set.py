"""Datasets of shards written by hand: a tone for each clip, with its captions and tags."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import audio, storage
from pipeline.dataset import overlays, shards
from pipeline.dataset.shards import Outcome

Clips = Mapping[str, tuple[float, Sequence[str], Sequence[str]]]  # key -> pitch (Hz), captions, tags


def write(folder: Path, *parts: Clips, first: int = 0) -> str:
    """Write a shard for each of some parts, from number `first` on, and bring sizes.json up to them; return the folder."""
    data = str(folder)
    sizes = storage.read_json(f"{data}/sizes.json") if first else {}
    for number, clips in enumerate(parts, start=first):
        outcomes = [outcome(key, *clip) for key, clip in clips.items()]
        shards.write(data, number, [*outcomes, Outcome(key=f"broken{number}", status="failed", stage="read")], "plan")
        sizes[shards.tar_name(number)] = len(clips) + 1
    storage.publish_json(f"{data}/sizes.json", sizes)
    return data


def outcome(key: str, pitch_hz: float, captions: Sequence[str], tags: Sequence[str]) -> Outcome:
    """Return a written clip of a quarter of a second."""
    samples = sound(pitch_hz)
    meta = shards.SampleMeta(text=list(captions), tag=list(tags), source_id=f"source of {key}", captions=[])
    flac = audio.encode_flac(samples)
    return Outcome(key=key, status="written", stage="write", duration_s=0.25, flac=flac, meta=meta)


def sound(pitch_hz: float) -> np.ndarray:
    """Return a tone, int16 (8000,) at 32 kHz."""
    return np.asarray(8_000 * np.sin(2 * np.pi * pitch_hz * np.arange(8_000) / 32_000), np.int16)


def write_overlay(data: str, name: str, captions: Mapping[str, Sequence[str]]) -> None:
    """Write an overlay with captions of all clips of a dataset; keys that it lacks have none."""
    folder = overlays.folder(data, name)
    for number in shards.sizes(data):
        keys = [row["key"] for row in overlays.read_clips(data, number)]
        rows = [{"key": key, "text": list(captions[key]), "score": []} for key in keys if key in captions]
        table = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
        storage.publish_table(storage.join(folder, shards.ledger_name(number)), table)
    storage.publish_json(storage.join(folder, overlays.MARK_FILE), {})
