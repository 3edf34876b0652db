"""Write new captions for a dataset that is there: `python -m pipeline recaption <config> --data <dataset> --name <overlay>`.

The audio shards stay as they are; the captions become an overlay, that training and export choose with --captions.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import overlays, shards
from pipeline.graph import engine
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.finalize import read_finished_plan
from pipeline.graph.run_config import RunConfig, read_run_config
from pipeline.graph.shard_batch import ClipRow, pack, unpack
from pipeline.graph.write_shard import caption_record
from pipeline.planning.plan import Plan
from pipeline.progress import Progress

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo
    from train.models.captioner.model import CaptionerConfig

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
    config = dataclasses.replace(config, captioner=storage.resolve(config.captioner))
    run_config = RunConfig(config=config, captioner_revision=checkpoint_info.revision, arithmetic=config.arithmetic)
    run_dir.claim(folder, config, run_config.identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    done = set(storage.list_names(folder))
    todo = [shard for shard in plan.shards if shards.ledger_name(shard) not in done]
    if not todo and storage.exists(marker):
        log.info("recaption: %s is complete already", folder)
        return
    _write_parts(config, data, folder, todo)
    made = {"model": config.captioner, "revision": checkpoint_info.revision, "guidance": config.guidance}
    decodings = [str(decoding) for decoding in config.decodings]
    storage.publish_json(
        marker, {"stage": "pipeline recaption", **made, "decodings": decodings, "score": "of the captioner"}
    )
    log.info("recaption: wrote %s", folder)


def _write_parts(config: RecaptionConfig, data: str, folder: str, todo: list[int]) -> None:
    steps = (
        engine.Tasks(partial(open_shard, data=data)),
        engine.Actors(CaptionActor, (config,), config.actors),
        engine.Tasks(partial(write_part, folder=folder)),
    )
    progress = Progress("recaption", "clips")
    for row in engine.rows(todo, *steps, in_process=config.actors.in_process):
        progress.add(row["clips"])


def open_shard(batch: pa.Table, data: str) -> pa.Table:
    """Turn a shard number into its written clips."""
    (shard,) = batch["shard"].to_pylist()
    tar = storage.read(storage.join(data, shards.tar_name(shard)))
    ledger: list[shards.ClipRow] = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
    return pack(shard, [_clip(row, tar) for row in ledger if row["status"] == "written"])


def write_part(batch: pa.Table, folder: str) -> pa.Table:
    """Publish one part of the overlay; a clip that got no caption has none in it."""
    shard, clips = unpack(batch)
    run_config = read_run_config(folder, RecaptionConfig)
    rows: list[overlays.CaptionsRow] = []
    for clip in clips:
        records = [caption_record(caption, run_config) for caption in clip["captions"] or ()]
        rows.append(
            {
                "key": clip["key"],
                "text": [record["text"] for record in records],
                "score": [record["score"] for record in records],
                "captions": json.dumps(records, ensure_ascii=False),
            }
        )
    table = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    storage.publish_table(storage.join(folder, shards.ledger_name(shard)), table)
    return pa.table({"shard": [shard], "clips": [len(rows)]})


def _clip(row: shards.ClipRow, tar: bytes) -> ClipRow:
    meta = json.loads(shards.member(tar, row, "json"))
    return {  # type: ignore[typeddict-item]  # the captioner needs nothing of where the audio came from
        "key": row["key"],
        "tags": row["tags"],
        "status": "ready",
        "num_samples": meta["num_samples"],
        "flac": shards.member(tar, row, "flac"),
    }


def _check(config: RecaptionConfig) -> tuple["CheckpointInfo[CaptionerConfig]", Plan]:
    from train import checkpoint
    from train.models.captioner.model import TagGuidedCaptioner

    checkpoint_info = checkpoint.describe(config.captioner, "--captioner", TagGuidedCaptioner)
    config.check(checkpoint_info.network)
    overlays.check_name(config.name)
    return checkpoint_info, read_finished_plan(config.data)
