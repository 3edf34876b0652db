"""Materialise a choice of clips and captions as plain tars: `python -m pipeline export --data <dataset> --out <folder>`.

For tools that do not read overlays: the chosen captions are in the JSON of the samples, and clips that are left out are
not in the tars. Audio is copied byte for byte, or resampled for loaders that do not resample. A stopped export continues.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import audio, run_dir, storage
from pipeline.dataset import overlays, selection, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.progress import Progress

log = logging.getLogger(__name__)
LIST_FILE = "selection.parquet"
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 48_000
LISTED_COLUMNS = ["key", "sha256", "shard", "flac_offset", "flac_size", "json_offset", "json_size"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(SelectionConfig):
    """Write chosen clips and captions of a dataset as plain WebDataset tars."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    out: str = ""
    """Folder or URI for the tars and their sizes.json."""
    clips_per_shard: int = 512
    """Clips in each tar but the last."""
    rate: int = audio.SAMPLE_RATE_HZ
    """Sample rate of the audio, Hz: 32000, the shards' own, copies it byte for byte; others resample it, such as 48000 for
    LAION-CLAP, which never resamples."""
    in_process: bool = field(default=False, metadata=run_dir.NOT_IDENTITY)
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


class _ListedClip(TypedDict):
    """A row of selection.parquet: a clip to export and where it lies."""

    key: str
    sha256: str
    shard: int
    flac_offset: int
    flac_size: int
    json_offset: int
    json_size: int
    chosen: list[str]  # its captions
    overlay: str  # JSON of its `CaptionsRow`, or null


def run(config: ExportConfig) -> None:
    """Write the tars; existing ones are skipped."""
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a finished `python -m pipeline caption`")
    if config.clips_per_shard < 1:
        raise InputError("--clips-per-shard", config.clips_per_shard, "use 1 or more")
    if not MIN_RATE_HZ <= config.rate <= MAX_RATE_HZ:
        raise InputError("--rate", config.rate, f"use {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    try:
        index = ClipIndex(config.data)
    except FileNotFoundError as error:
        raise InputError("--data", config.data, str(error)) from None
    listed = _list(index, config)
    if not len(listed):
        raise InputError("--data", config.data, f"none of its {len(index)} clips is left by these thresholds")
    identity = {"plan_hash": shards.provenance(index.data)["plan_hash"], "selection": _revision(listed)}
    out = run_dir.claim(config.out, config, identity)
    size = config.clips_per_shard
    groups = [range(first, min(first + size, len(listed))) for first in range(0, len(listed), size)]
    done = set(storage.list_names(out))
    todo = [number for number in range(len(groups)) if shards.tar_name(number) not in done]
    if todo:
        sink = pa.BufferOutputStream()
        pq.write_table(listed, sink, row_group_size=size)
        storage.publish(storage.join(out, LIST_FILE), sink.getvalue().to_pybytes())
        progress = Progress("export", "clips", sum(len(groups[number]) for number in todo))
        task = partial(write, data=index.data, out=out, rate_hz=config.rate)
        for row in engine.rows(todo, engine.Tasks(task), in_process=config.in_process):
            progress.add(row["clips"])
    storage.publish_json(storage.join(out, "sizes.json"), {shards.tar_name(n): len(g) for n, g in enumerate(groups)})
    log.info("export: %s: %d of %d clips in %d tars", out, len(listed), len(index), len(groups))


def write(batch: pa.Table, data: str, out: str, rate_hz: int) -> pa.Table:
    """Write one tar."""
    (number,) = batch["shard"].to_pylist()
    with storage.open_parquet(storage.join(out, LIST_FILE)) as file:
        rows: list[_ListedClip] = file.read_row_group(number).to_pylist()
    samples = [
        sample
        for shard, group in groupby(rows, key=itemgetter("shard"))
        for sample in _samples(storage.join(data, shards.tar_name(shard)), list(group), rate_hz)
    ]
    storage.publish(storage.join(out, shards.tar_name(number)), *shards.pack(samples).tar.parts)
    return pa.table({"shard": [number], "clips": [len(samples)]})


def _samples(tar_uri: str, clips: list[_ListedClip], rate_hz: int) -> Iterator[tuple[str, bytes, shards.SampleMeta]]:
    """Read neighbouring clips of one tar in one request; yield key, FLAC and JSON of each."""
    start = min(clips[0]["flac_offset"], clips[0]["json_offset"])
    last = clips[-1]
    end = max(last["flac_offset"] + last["flac_size"], last["json_offset"] + last["json_size"])
    data = storage.read(tar_uri, start, end - start)
    for clip in clips:
        flac, text = (
            data[offset - start : offset - start + size]
            for offset, size in ((clip["flac_offset"], clip["flac_size"]), (clip["json_offset"], clip["json_size"]))
        )
        meta = _with_chosen_captions(json.loads(text), clip)
        if rate_hz != audio.SAMPLE_RATE_HZ:
            resampled = audio.decode(flac, rate_hz)
            flac = audio.encode_flac(resampled, rate_hz)
            meta |= {"sample_rate_hz": rate_hz, "num_samples": len(resampled)}
        yield clip["key"], flac, meta


def _list(index: ClipIndex, config: ExportConfig) -> pa.Table:
    """Return the clips and captions to export, rows of `_ListedClip`; a task reads the row group of its tar only."""
    tables = []
    for chosen in selection.select(index.data, config, LISTED_COLUMNS):  # of one shard each
        captions = {}
        if config.captions and len(chosen):
            captions = overlays.read_part(index.data, config.captions, chosen["shard"][0].as_py())
        overlay = [json.dumps(captions.get(key)) for key in chosen["key"].to_pylist()]
        table = chosen.select(LISTED_COLUMNS).append_column("chosen", chosen["text"].cast(pa.list_(pa.string())))
        tables.append(table.append_column("overlay", pa.array(overlay, pa.string())))
    return pa.concat_tables(tables)


def _revision(listed: pa.Table) -> str:
    """Return a hash of the selection: an overlay may be made anew under its name, and retries add shards."""
    digest = hashlib.sha256()
    for batch in listed.to_batches(max_chunksize=10_000):
        digest.update(json.dumps(batch.to_pylist()).encode())
    return digest.hexdigest()


def _with_chosen_captions(meta: shards.SampleMeta, clip: _ListedClip) -> shards.SampleMeta:
    """Return a sample's JSON with the chosen captions, each with its record and its score in the overlay."""
    records: dict[str, Any] = {record["text"]: record for record in meta["captions"]}
    if overlay := json.loads(clip["overlay"]):
        records |= {record["text"]: record for record in json.loads(overlay["captions"] or "[]")}
        for text, score in zip(overlay["text"], overlay["score"], strict=True):
            records[text] = {**records.get(text, {"text": text}), **({} if score is None else {"overlay_score": score})}
    return {**meta, "text": clip["chosen"], "captions": [records[text] for text in clip["chosen"]]}
