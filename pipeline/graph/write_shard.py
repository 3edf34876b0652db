"""The writing task: a captioned shard -> tar, ledger and commit mark."""

import pyarrow as pa

from pipeline import audio
from pipeline.dataset import answers, phrases, shards, staging
from pipeline.dataset.shard_stats import ShardStats
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.captioner_name import CaptionerName
from pipeline.graph.job_stats import ShardReport
from pipeline.graph.run_config import ConfigT, RunConfig, read_run_config
from pipeline.graph.shard_batch import CaptionRow, ClipRow, ShardBatch
from pipeline.planning.plan import Plan
from pipeline.sources.clip import Event
from pipeline.sources.tables import LABEL_SEPARATOR


def write_shard(table: pa.Table, out: str, plan: Plan) -> pa.Table:
    """Publish one shard and return its `ShardReport`."""
    batch = ShardBatch.from_table(table)
    stats = _committed(batch.shard, out) or _write(batch, out, plan)  # Ray repeats a task whose worker died at its end
    staging.remove(batch.audio)
    if "requests" in batch.captioning:
        answers.remove(out, batch.shard)
    return ShardReport(stats=stats, actor=batch.actor, busy_s=batch.busy_s).to_batch()


def _committed(shard: int, out: str) -> ShardStats | None:
    return shards.read_stats(out, shard) if shards.is_committed(out, shard) else None


def _write(batch: ShardBatch, out: str, plan: Plan) -> ShardStats:
    try:
        return _publish(batch, out, plan)
    except FileNotFoundError:  # the audio: another writer may have committed the shard, and cleaned up
        if stats := _committed(batch.shard, out):
            return stats
        raise


def _publish(batch: ShardBatch, out: str, plan: Plan) -> ShardStats:
    run_config = read_run_config(out, CaptionConfig)
    audio_bytes = staging.read(batch.audio)
    outcomes = [_outcome(clip, audio_bytes, run_config) for clip in batch.clips]
    plan_hash = plan.part_of(batch.shard).hash
    return shards.write(out, batch.shard, outcomes, plan_hash, batch.captioning, run_config.config.timed)


def _outcome(clip: ClipRow, audio_bytes: memoryview, run_config: RunConfig[CaptionConfig]) -> shards.Outcome:
    if clip["status"] != "ready":
        return shards.Outcome(
            key=clip["key"],
            status=clip["status"],
            stage=clip["stage"],
            reason=clip["reason"],
            detail=clip["detail"],
        )
    captions = clip["captions"]
    assert captions, f"{clip['key']} is ready and has no caption"
    meta: shards.SampleMeta = {
        "text": [caption["text"] for caption in captions],
        "tag": clip["tags"],
        "mids": clip["mids"],
        "source_id": clip["source_id"],
        "origin": clip["origin"],
        "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "num_samples": clip["num_samples"],
        "sample_rate_hz": audio.SAMPLE_RATE_HZ,
        "captions": [caption_record(caption, run_config) for caption in captions],
        **(_timed(clip, run_config) if run_config.config.timed else {}),
    }
    return shards.Outcome(
        key=clip["key"],
        status="written",
        stage="write",
        detail=clip["note"] or "",
        duration_s=clip["num_samples"] / audio.SAMPLE_RATE_HZ,
        flac=audio_bytes[clip["flac_offset"] :][: clip["flac_size"]],
        meta=meta,
    )


def _timed(clip: ClipRow, run_config: RunConfig[CaptionConfig]) -> shards.SampleMeta:
    """Return when what sounds, and by what that is known; nothing where it is not."""
    if events := clip.get("events"):
        found = phrases.of_events([Event(**event) for event in events], clip["num_samples"] / audio.SAMPLE_RATE_HZ)
        return {"phrases": found, "phrases_from": "labels"}
    if (tagged := clip.get("phrases")) is not None:
        return {"phrases": tagged, "phrases_from": run_config.frame_tagger_revision}
    return {}


def caption_record(caption: CaptionRow, run_config: RunConfig[ConfigT]) -> shards.CaptionRecord:
    """Return what a sample states of one caption: its text and how it was made."""
    record: shards.CaptionRecord = {
        "text": caption["text"],
        "score": caption["score"],
        "model": CaptionerName.parse(run_config.config.captioner).title,
        "revision": run_config.captioner_revision,
        "decoding": caption["decoding"],
        "precision": run_config.arithmetic,
        "tags_given": caption["guidance"] == "tags",
    }
    if caption["guidance"] == "predicted":  # one text: readers that infer types stumble over lists that may be empty
        record["predicted_tags"] = LABEL_SEPARATOR.join(caption["tags"] or [])
    if caption["guidance"] == "shuffled":
        record["shuffled_tags"] = LABEL_SEPARATOR.join(caption["tags"] or [])
    if prompt := caption.get("prompt"):
        record["prompt"] = prompt
    return record
