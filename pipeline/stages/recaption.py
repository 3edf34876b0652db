"""Write new captions for a dataset that is there: `python -m pipeline recaption <config> --data <dataset> --name <overlay>`.

The audio shards stay as they are; the captions become an overlay, that training and export choose with --captions.
"""

import json
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import authorship, commit, overlays, shards
from pipeline.graph import captioners, engine, run_config
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.captioner import CaptionerInfo
from pipeline.graph.finalize import read_finished_plan
from pipeline.graph.reader import READERS
from pipeline.graph.shard_batch import ClipRow, ShardBatch, Waveforms
from pipeline.graph.write_shard import caption_record
from pipeline.pages import dataset_card
from pipeline.planning.plan import Plan
from pipeline.progress import Progress

log = logging.getLogger(__name__)
COUNTS = "captioning"  # metadata of a part: what the captioner counted, as JSON


@dataclass(frozen=True, kw_only=True)
class RecaptionConfig(CaptionActorConfig):
    """Caption a dataset of shards again, into an overlay."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as captions-v2; becomes <data>/overlays/<name>."""


def run(config: RecaptionConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    info, plan = _check(config)
    data, folder = storage.resolve(config.data), overlays.folder(config.data, config.name)
    config = captioners.resolved(config, info).sized(plan.num_clips)
    run_dir.claim(folder, config, run_config.begin(config, info).identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    done = set(storage.list_names(folder))
    todo = [shard for shard in plan.shards if shards.ledger_name(shard) not in done]
    if not todo and storage.exists(marker):
        log.info("recaption: %s is complete already", folder)
        return
    _write_parts(config, data, folder, todo, round(info.clip_s * audio.SAMPLE_RATE_HZ))
    made = {"model": config.captioner, "revision": info.revision, "guidance": config.guidance}
    decodings = [str(decoding) for decoding in config.decodings]
    score = "of the captioner" if info.has_score else None
    counts = _count(folder)
    marked = {"stage": "pipeline recaption", **made, "decodings": decodings, "score": score}
    counted = {"captioning": counts} if counts else {}
    storage.publish_json(marker, {**marked, **counted, **authorship.describe(data, config.name)})
    dataset_card.name_captioners(data)
    commit.clean_up(folder)
    log.info("recaption: wrote %s", folder)


def _write_parts(config: RecaptionConfig, data: str, folder: str, todo: list[int], num_samples: int) -> None:
    steps = (
        engine.Tasks(partial(open_shard, data=data, num_samples=num_samples)),
        engine.Actors(CaptionActor, (config, partial(captioners.make, folder=folder)), config.actors),
        engine.Tasks(partial(write_part, folder=folder)),
    )
    progress = Progress("recaption", "clips")
    for row in engine.rows(todo, *steps, in_process=config.actors.in_process):
        progress.add(row["clips"])


def open_shard(table: pa.Table, data: str, num_samples: int) -> pa.Table:
    """Turn a shard number into its written clips, decoded; `num_samples` of each go to the captioner."""
    (shard,) = table["shard"].to_pylist()
    tar = storage.read(storage.join(data, shards.tar_name(shard)))
    ledger: list[shards.ClipRow] = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
    written = [row for row in ledger if row["status"] == "written"]
    waveforms = Waveforms(len(written), num_samples)

    def clip(index: int) -> ClipRow:
        samples = audio.decode(shards.member(tar, written[index], "flac"))
        waveforms.put(index, samples)
        return _clip(written[index], len(samples))

    with ThreadPoolExecutor(READERS) as pool:
        clips = list(pool.map(clip, range(len(written))))
    return ShardBatch(shard=shard, clips=clips, waveforms=waveforms.joined()).to_table()


def write_part(table: pa.Table, folder: str) -> pa.Table:
    """Publish one part of the overlay; a clip that got no caption has none in it."""
    batch = ShardBatch.from_table(table)
    as_begun = run_config.read_run_config(folder, RecaptionConfig)
    rows: list[overlays.CaptionsRow] = []
    for clip in batch.clips:
        records = [caption_record(caption, as_begun) for caption in clip["captions"] or ()]
        rows.append(
            {
                "key": clip["key"],
                "text": [record["text"] for record in records],
                "score": [record["score"] for record in records],
                "captions": json.dumps(records, ensure_ascii=False),
            }
        )
    part = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    if batch.captioning:
        part = part.replace_schema_metadata({COUNTS: json.dumps(batch.captioning)})
    storage.publish_table(storage.join(folder, shards.ledger_name(batch.shard)), part)
    return pa.table({"shard": [batch.shard], "clips": [len(rows)]})


def _count(folder: str) -> dict[str, int]:
    """Return what the captioner counted over all parts."""
    counts: Counter[str] = Counter()
    for name in storage.list_names(folder):
        if name.endswith(".parquet"):
            with storage.open_parquet(storage.join(folder, name)) as file:
                counts.update(json.loads((file.schema_arrow.metadata or {}).get(COUNTS.encode(), b"{}")))
    return dict(sorted(counts.items()))


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
