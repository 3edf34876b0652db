"""Write new captions for a dataset that is there: `python -m pipeline recaption <config> --data <dataset> --name <overlay>`.

The audio shards stay as they are; the captions become an overlay, that training and export choose with --captions. Where
more clips got no caption than --max-bad-fraction allows, it is not published, and the same command asks again for those that
the captioner refused.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import authorship, commit, overlays, shards
from pipeline.graph import budget, caption_failures, captioners, engine, run_config
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.caption_failures import REFUSED
from pipeline.graph.captioner import CaptionerInfo
from pipeline.graph.finalize import read_finished_plan
from pipeline.graph.reader import READERS
from pipeline.graph.shard_batch import ClipRow, ShardBatch, Waveforms, end_clip
from pipeline.graph.write_shard import caption_record
from pipeline.pages import dataset_card
from pipeline.planning.plan import Plan
from pipeline.progress import Progress

log = logging.getLogger(__name__)
COUNTS = "captioning"  # metadata of a part: what the captioner counted, as JSON
LEFT_OUT = "left_out"  # and its clips without captions, by key: status, reason and detail
HAS_CAPTION = "has_caption"  # reason of clips that are not captioned again
SUFFIX = ".parquet"  # of a part
PART_READERS = 16  # parts whose metadata is read at a time; from object storage each is a wait
REMEDY = "the same command asks again for refused ones"


@dataclass(frozen=True, kw_only=True)
class RecaptionConfig(CaptionActorConfig):
    """Caption a dataset of shards again, into an overlay."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as captions-v2; becomes <data>/overlays/<name>."""


class Part(NamedTuple):
    """What a part states of itself in its metadata."""

    counts: dict[str, int]
    left_out: dict[str, tuple[str, str, str]]


def run(config: RecaptionConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped.

    Raises:
        JobError: when more clips got no caption than --max-bad-fraction allows.
    """
    info, plan = _check(config)
    data, folder = storage.resolve(config.data), overlays.folder(config.data, config.name)
    config = captioners.resolved(config, info).sized(plan.num_clips)
    run_dir.claim(folder, config, run_config.begin(config, info).identity, flag="--name")
    marker, num_clips = storage.join(folder, overlays.MARK_FILE), sum(shards.sizes(data).values())
    missing = set(plan.shards) - set(_part_numbers(folder))
    if not missing and storage.exists(marker):
        reasons = storage.read_json(marker).get(LEFT_OUT, {})
        if not caption_failures.is_above(reasons, num_clips, config.max_bad_fraction):
            log.info("recaption: %s is complete already", folder)
            return
    _write_parts(config, data, folder, missing, num_clips, round(info.clip_s * audio.SAMPLE_RATE_HZ))
    made = {"model": config.captioner, "revision": info.revision, "guidance": config.guidance}
    decodings = [str(decoding) for decoding in config.decodings]
    score = "of the captioner" if info.has_score else None
    marked = {"stage": "pipeline recaption", **made, "decodings": decodings, "score": score}
    counted = _counted(_read_parts(folder).values())
    storage.publish_json(marker, {**marked, **counted, **authorship.describe(data, config.name)})
    dataset_card.name_captioners(data)
    commit.clean_up(folder)
    log.info("recaption: wrote %s; clips without captions: %s", folder, counted.get(LEFT_OUT, "none"))


def _write_parts(
    config: RecaptionConfig, data: str, folder: str, missing: set[int], num_clips: int, num_samples: int
) -> None:
    """Write the missing parts; where more clips than allowed have no captions, ask again for the refused ones."""
    parts = _read_parts(folder)
    if caption_failures.is_above(_reasons(parts.values()), num_clips, config.max_bad_fraction):
        missing = missing | {shard for shard, part in parts.items() if _reasons([part])[REFUSED]}
    reasons = _reasons(part for shard, part in parts.items() if shard not in missing)
    caption_failures.check_run(reasons, num_clips, config.max_bad_fraction, REMEDY)
    make_captioner = partial(captioners.make, folder=folder, budget=budget.of_run(config))
    steps = (
        engine.Tasks(partial(open_shard, data=data, folder=folder, num_samples=num_samples)),
        engine.Actors(CaptionActor, (config, make_captioner), config.actors),
        engine.Tasks(partial(write_part, folder=folder)),
    )
    progress = Progress("recaption", "clips")
    for row in engine.rows(sorted(missing), *steps, in_process=config.actors.in_process):
        progress.add(row["clips"])
        reasons.update({reason: row[reason] for reason in caption_failures.REASONS})
        caption_failures.check_run(reasons, num_clips, config.max_bad_fraction, REMEDY)


def open_shard(table: pa.Table, data: str, folder: str, num_samples: int) -> pa.Table:
    """Turn a shard number into its written clips, decoded; `num_samples` of each go to the captioner.

    Where the overlay has the part already, the captioner gets its refused clips alone.
    """
    (shard,) = table["shard"].to_pylist()
    tar = storage.read(storage.join(data, shards.tar_name(shard)))
    ledger: list[shards.ClipRow] = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
    written = [row for row in ledger if row["status"] == "written"]
    waveforms = Waveforms(len(written), num_samples)
    rows, part = _read_part(folder, shard)

    def clip(index: int) -> ClipRow:
        key = written[index]["key"]
        if key in rows and part.left_out.get(key, ("", "", ""))[1] != REFUSED:
            return end_clip(_clip(written[index], 0), "filtered", "read", HAS_CAPTION, "")
        samples = audio.decode(shards.member(tar, written[index], "flac"))
        waveforms.put(index, samples)
        return _clip(written[index], len(samples))

    with ThreadPoolExecutor(READERS) as pool:
        clips = list(pool.map(clip, range(len(written))))
    return ShardBatch(shard=shard, clips=clips, waveforms=waveforms.joined(), captioning=part.counts).to_table()


def write_part(table: pa.Table, folder: str) -> pa.Table:
    """Publish one part of the overlay; a clip that got no caption has none in it, and the metadata states why."""
    batch = ShardBatch.from_table(table)
    as_begun = run_config.read_run_config(folder, RecaptionConfig)
    before, part = _read_part(folder, batch.shard)
    rows: list[overlays.CaptionsRow] = []
    left_out: dict[str, tuple[str, str, str]] = {}
    for clip in batch.clips:
        key = clip["key"]
        if clip["reason"] == HAS_CAPTION:
            rows.append(before[key])
            left_out |= {key: part.left_out[key]} if key in part.left_out else {}
            continue
        if clip["status"] != "ready":
            left_out[key] = clip["status"], clip["reason"], clip["detail"]
        rows.append(_row(key, [caption_record(caption, as_begun) for caption in clip["captions"] or ()]))
    content = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    stated = {COUNTS: batch.captioning, LEFT_OUT: left_out}
    metadata = {name: json.dumps(value) for name, value in stated.items() if value}
    storage.publish_table(
        storage.join(folder, shards.ledger_name(batch.shard)), content.replace_schema_metadata(metadata or None)
    )
    reasons = _reasons([Part({}, left_out)])
    found = {"shard": batch.shard, "clips": len(rows), **{name: reasons[name] for name in caption_failures.REASONS}}
    return pa.Table.from_pylist([found])


def _row(key: str, records: list[shards.CaptionRecord]) -> overlays.CaptionsRow:
    return {
        "key": key,
        "text": [record["text"] for record in records],
        "score": [record["score"] for record in records],
        "captions": json.dumps(records, ensure_ascii=False),
    }


def _part_numbers(folder: str) -> list[int]:
    return [int(name.removesuffix(SUFFIX)) for name in storage.list_names(folder) if name.endswith(SUFFIX)]


def _read_parts(folder: str) -> dict[int, Part]:
    """Return what the parts that are there state of themselves."""

    def read(shard: int) -> Part:
        with storage.open_parquet(storage.join(folder, shards.ledger_name(shard))) as file:
            return _stated(file.schema_arrow)

    numbers = _part_numbers(folder)
    with ThreadPoolExecutor(PART_READERS) as pool:
        return dict(zip(numbers, pool.map(read, numbers), strict=True))


def _read_part(folder: str, shard: int) -> tuple[dict[str, overlays.CaptionsRow], Part]:
    """Return the rows of a part, by key, and what it states of itself; nothing where there is none."""
    try:
        table = storage.read_table(storage.join(folder, shards.ledger_name(shard)))
    except FileNotFoundError:
        return {}, Part({}, {})
    return {row["key"]: row for row in table.to_pylist()}, _stated(table.schema)


def _stated(schema: pa.Schema) -> Part:
    metadata = schema.metadata or {}
    counts, left_out = (json.loads(metadata.get(name.encode(), b"{}")) for name in (COUNTS, LEFT_OUT))
    return Part(counts, {key: tuple(why) for key, why in left_out.items()})


def _reasons(parts: Iterable[Part]) -> Counter[str]:
    """Count the clips without captions by reason."""
    return Counter(reason for part in parts for _, reason, _ in part.left_out.values())


def _counted(parts: Iterable[Part]) -> dict[str, Any]:
    """Return what overlay.json holds of the parts: what the captioner counted, and clips without captions by reason."""
    parts = list(parts)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    found = {COUNTS: counts, LEFT_OUT: _reasons(parts)}
    return {name: dict(sorted(value.items())) for name, value in found.items() if value}


def _clip(row: shards.ClipRow, num_samples: int) -> ClipRow:
    # the captioner needs nothing of where the audio came from
    return {  # type: ignore[typeddict-item]
        "key": row["key"],
        "tags": row["tags"],
        "texts": row["text"],
        "status": "ready",
        "num_samples": num_samples,
    }


def _check(config: RecaptionConfig) -> tuple[CaptionerInfo, Plan]:
    info = captioners.describe(config)
    overlays.check_name(config.name)
    return info, read_finished_plan(config.data)
