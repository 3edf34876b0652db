"""Materialise a choice of clips and captions as plain tars: `python -m pipeline export --data <dataset> --out <folder>`.

For tools that know nothing of overlays: the chosen captions stand in each sample's JSON, what is left out is not in
the tars. Audio is copied byte for byte, or resampled for loaders that take every file for one of their own rate. Shards
keep their size; a stopped export goes on where it was.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import audio, run_dir, storage
from pipeline.dataset import selection, shards
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.progress import Progress

log = logging.getLogger(__name__)
LIST_FILE = "selection.parquet"
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 48_000
PLACE = ["key", "sha256", "shard", "flac_offset", "flac_size", "json_offset", "json_size"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(SelectionConfig):
    """Write chosen clips and captions of a dataset as plain WebDataset tars."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    out: str = ""
    """Folder or URI for the tars and their sizes.json."""
    clips_per_shard: int = 512
    """Clips in each tar but the last."""
    rate: int = audio.SAMPLE_RATE_HZ
    """Sample rate of the audio, Hz: 32000, the shards' own, copies it byte for byte; others resample it, such as 48000 for
    LAION-CLAP, which never resamples."""
    in_process: bool = False
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


def run(config: ExportConfig) -> None:
    """Write the tars; those that are there are skipped."""
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a finished `python -m pipeline caption`")
    if config.clips_per_shard < 1:
        raise InputError("--clips-per-shard", config.clips_per_shard, "use 1 or more")
    if not MIN_RATE_HZ <= config.rate <= MAX_RATE_HZ:
        raise InputError("--rate", config.rate, f"use {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    try:
        index = shards.ClipIndex(config.data)
    except FileNotFoundError as error:
        raise InputError("--data", config.data, str(error)) from None
    listed = _list(index, config)
    if not len(listed):
        raise InputError("--data", config.data, f"none of its {len(index)} clips is left by these thresholds")
    identity = {"plan_hash": shards.origin(index.data)["plan_hash"], "selection": _revision(listed)}
    out = run_dir.claim(config.out, config, identity, ignore=("data", "in_process"))
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
        rows = file.read_row_group(number).to_pylist()
    samples = []
    for shard, group in groupby(rows, key=itemgetter("shard")):
        clips = list(group)
        first, last = clips[0], clips[-1]
        start = min(first["flac_offset"], first["json_offset"])
        end = max(last[f"{kind}_offset"] + last[f"{kind}_size"] for kind in ("flac", "json"))
        tar = storage.read(storage.join(data, shards.tar_name(shard)), start, end - start)
        for clip in clips:
            place = {**clip, **{f"{kind}_offset": clip[f"{kind}_offset"] - start for kind in ("flac", "json")}}
            meta = _meta(json.loads(shards.member(tar, place, "json")), clip)
            flac = shards.member(tar, place, "flac")
            if rate_hz != audio.SAMPLE_RATE_HZ:
                resampled = audio.decode(flac, rate_hz)
                flac = audio.encode_flac(resampled, rate_hz)
                meta |= {"sample_rate_hz": rate_hz, "num_samples": len(resampled)}
            samples.append((clip["key"], flac, meta))
    storage.publish(storage.join(out, shards.tar_name(number)), shards.pack(samples))
    return pa.table({"shard": [number], "clips": [len(samples)]})


def _list(index: shards.ClipIndex, config: ExportConfig) -> pa.Table:
    """Return which clips and captions go into the tars; a row group to a tar, so that a task reads just its own."""
    told = shards.read_overlay(index.data, config.captions)[0] if config.captions else {}
    chosen = pa.concat_tables(selection.select(index.data, config, PLACE))
    overlay = [json.dumps(told.get(key)) for key in chosen["key"].to_pylist()]
    table = chosen.select(PLACE).append_column("chosen", chosen["text"].cast(pa.list_(pa.string())))
    return table.append_column("overlay", pa.array(overlay))


def _revision(listed: pa.Table) -> str:
    """Return a hash of what is exported: the overlay and the retries behind it may change under the same names."""
    digest = hashlib.sha256()
    for batch in listed.to_batches(max_chunksize=10_000):
        digest.update(json.dumps(batch.to_pylist()).encode())
    return digest.hexdigest()


def _meta(meta: dict[str, Any], clip: dict[str, Any]) -> dict[str, Any]:
    """Return a sample's JSON with the chosen captions, each with how it was made and its score in the overlay."""
    records = {record["text"]: record for record in meta["captions"]}
    if told := json.loads(clip["overlay"]):
        records |= {record["text"]: record for record in json.loads(told["captions"] or "[]")}
        for text, score in zip(told["text"], told["score"], strict=True):
            records[text] = {**records.get(text, {"text": text}), "overlay_score": score}
    return {**meta, "text": clip["chosen"], "captions": [records[text] for text in clip["chosen"]]}
