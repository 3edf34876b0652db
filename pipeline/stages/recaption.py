"""Write new captions for a dataset that is there: `python -m pipeline recaption <config> --data <dataset> --name <overlay>`.

The audio shards stay as they are; the captions become an overlay, that training and export choose with --captions.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import overlays, shards
from pipeline.graph import caption_graph, engine, job_stats, reader
from pipeline.graph.caption_actor import CaptionActor, CaptionActorConfig
from pipeline.planning import plan
from pipeline.progress import Progress

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo
    from train.models.captioner.model import CaptionerConfig

log = logging.getLogger(__name__)
FREE = ("data", "captioner", "actors")


@dataclass(frozen=True, kw_only=True)
class RecaptionConfig(CaptionActorConfig):
    """Caption a dataset of shards again, into an overlay."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as captions-v2; becomes <data>/overlays/<name>."""


def run(config: RecaptionConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    checkpoint_info, planned = _check(config)
    data, folder = storage.resolve(config.data), overlays.folder(config.data, config.name)
    config = dataclasses.replace(config, captioner=storage.resolve(config.captioner))
    identity = {"captioner_revision": checkpoint_info.revision, "arithmetic": config.arithmetic}
    run_dir.claim(folder, config, identity, ignore=FREE, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    done = set(storage.list_names(folder))
    todo = [shard for shard in range(plan.num_shards(planned)) if shards.ledger_name(shard) not in done]
    if not todo and storage.exists(marker):
        log.info("recaption: %s is complete already", folder)
        return
    if todo:
        progress = Progress("recaption", "clips")
        opened = engine.map_tasks(engine.shard_numbers(todo), partial(open_shard, data=data))
        captioned = engine.map_actors(opened, CaptionActor, (config,), config.actors)
        for row in engine.rows(engine.map_tasks(captioned, partial(write, folder=folder))):
            progress.add(row["clips"])
    made = {"model": config.captioner, "revision": checkpoint_info.revision, "guidance": config.guidance}
    decodings = [str(decoding) for decoding in config.decodings]
    storage.publish_json(
        marker, {"stage": "pipeline recaption", **made, "decodings": decodings, "score": "of the captioner"}
    )
    log.info("recaption: wrote %s", folder)


def open_shard(batch: pa.Table, data: str) -> pa.Table:
    """Turn a shard number into its written clips."""
    (shard,) = batch["shard"].to_pylist()
    tar = storage.read(storage.join(data, shards.tar_name(shard)))
    ledger = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
    return reader.pack(shard, [_clip(row, tar) for row in ledger if row["status"] == "written"])


def write(batch: pa.Table, folder: str) -> pa.Table:
    """Publish one part of the overlay; a clip that got no caption has none in it."""
    shard, clips = reader.unpack(batch)
    owner = storage.read_json(storage.join(folder, run_dir.RUN_FILE))
    rows = []
    for clip in clips:
        made = [caption_graph.provenance(each, owner) for each in clip["captions"] or ()]
        told = json.dumps(made, ensure_ascii=False)
        rows.append(
            {"key": clip["key"], **{k: [each[k] for each in made] for k in ("text", "score")}, "captions": told}
        )
    storage.publish_table(
        storage.join(folder, shards.ledger_name(shard)), pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    )
    return pa.table({"shard": [shard], "clips": [len(rows)]})


def _clip(row: shards.ClipRow, tar: bytes) -> dict[str, Any]:
    flac, text = (shards.member(tar, row, kind) for kind in ("flac", "json"))
    meta = json.loads(text)
    return {
        "key": row["key"], "tags": row["tags"], "status": "written", "num_samples": meta["num_samples"], "flac": flac,
    }  # fmt: skip


def _check(config: RecaptionConfig) -> tuple["CheckpointInfo[CaptionerConfig]", dict[str, Any]]:
    from train import checkpoint
    from train.models.captioner.model import TagGuidedCaptioner

    checkpoint_info = checkpoint.describe(config.captioner, "--captioner", TagGuidedCaptioner)
    config.check(checkpoint_info.network)
    overlays.check_name(config.name)
    return checkpoint_info, job_stats.whole(config.data)
