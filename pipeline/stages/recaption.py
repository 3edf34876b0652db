"""Write new captions for a dataset that is there: `python -m pipeline recaption <config> --data <dataset> --name <overlay>`.

The audio shards stay as they are; the captions become an overlay, that training and export choose with --captions.
"""

import dataclasses
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import overlays, shards
from pipeline.graph import engine
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.finalize import read_finished_plan
from pipeline.graph.reader import READERS
from pipeline.graph.run_config import RunConfig, read_run_config
from pipeline.graph.shard_batch import ClipRow, ShardBatch, Waveforms
from pipeline.graph.write_shard import caption_record
from pipeline.planning.plan import Plan
from pipeline.progress import Progress

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo
    from train.models.captioner.config import CaptionerConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecaptionConfig(CaptionActorConfig):
    """Caption a dataset of shards again, into an overlay."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as captions-v2; becomes <data>/overlays/<name>."""


def run(config: RecaptionConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    checkpoint_info, plan = _check(config)
    data, folder = storage.resolve(config.data), overlays.folder(config.data, config.name)
    config = dataclasses.replace(config, captioner=storage.resolve(config.captioner)).sized(plan.num_clips)
    run_config = RunConfig(config=config, captioner_revision=checkpoint_info.revision, arithmetic=config.arithmetic)
    run_dir.claim(folder, config, run_config.identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    done = set(storage.list_names(folder))
    todo = [shard for shard in plan.shards if shards.ledger_name(shard) not in done]
    if not todo and storage.exists(marker):
        log.info("recaption: %s is complete already", folder)
        return
    _write_parts(config, data, folder, todo, round(checkpoint_info.network.clip_s * audio.SAMPLE_RATE_HZ))
    made = {"model": config.captioner, "revision": checkpoint_info.revision, "guidance": config.guidance}
    decodings = [str(decoding) for decoding in config.decodings]
    storage.publish_json(
        marker, {"stage": "pipeline recaption", **made, "decodings": decodings, "score": "of the captioner"}
    )
    log.info("recaption: wrote %s", folder)


def _write_parts(config: RecaptionConfig, data: str, folder: str, todo: list[int], num_samples: int) -> None:
    steps = (
        engine.Tasks(partial(open_shard, data=data, num_samples=num_samples)),
        engine.Actors(CaptionActor, (config,), config.actors),
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
    run_config = read_run_config(folder, RecaptionConfig)
    rows: list[overlays.CaptionsRow] = []
    for clip in batch.clips:
        records = [caption_record(caption, run_config) for caption in clip["captions"] or ()]
        rows.append(
            {
                "key": clip["key"],
                "text": [record["text"] for record in records],
                "score": [record["score"] for record in records],
                "captions": json.dumps(records, ensure_ascii=False),
            }
        )
    part = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    storage.publish_table(storage.join(folder, shards.ledger_name(batch.shard)), part)
    return pa.table({"shard": [batch.shard], "clips": [len(rows)]})


def _clip(row: shards.ClipRow, num_samples: int) -> ClipRow:
    # the captioner needs nothing of where the audio came from
    return {"key": row["key"], "tags": row["tags"], "status": "ready", "num_samples": num_samples}  # type: ignore[typeddict-item]


def _check(config: RecaptionConfig) -> tuple["CheckpointInfo[CaptionerConfig]", Plan]:
    from train import checkpoint

    checkpoint_info = checkpoint.describe(config.captioner, "--captioner", "captioner")
    config.check(checkpoint_info.network)
    overlays.check_name(config.name)
    return checkpoint_info, read_finished_plan(config.data)
