"""The graph of a caption job on Ray Data.

A row is one shard of the plan, so that the engine can neither split nor merge shards.

    shard numbers -> Reader (CPU tasks): plan rows, bytes, check, canonical FLAC
                  -> Captioner (actors, on GPUs where asked): decode, batch, beam search
                  -> write (CPU tasks): tar, ledger, commit mark

Between the stages travel encoded bytes in Arrow columns, never Python objects.
"""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import commit, shards
from pipeline.errors import InputError
from pipeline.graph import engine, fingerprint_pass, job_stats, reader
from pipeline.graph.caption_actor import CaptionActor, CaptionActorConfig
from pipeline.graph.fingerprint_pass import Fingerprinter
from pipeline.graph.reader import Reader
from pipeline.planning import plan
from pipeline.planning.cut import MAX_SHARD_MB
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.quality import audio_filter
from pipeline.quality.audio_filter import AudioFilterConfig
from pipeline.sources.tables import LABEL_SEPARATOR

if TYPE_CHECKING:
    import ray.data

    from train.checkpoint import CheckpointInfo
    from train.models.captioner.model import CaptionerConfig

log = logging.getLogger(__name__)
FREE = (  # may change between runs; what these decide is in the plan's hash, the captioner's revision, the arithmetic
    "max_bad_fraction", "actors", "source", "folds", "captioner", "decode", "firewall", "precision", "max_shard_mb",
    "columns",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(CaptionActorConfig):
    """Write captions for tagged clips with a captioner, into WebDataset shards."""

    source: str = ""
    """Where the clips are: a CSV, a folder, tars or Parquet files."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    columns: str = ""
    """Columns of a table that are named otherwise, as in file=path,labels=tags."""
    out: str = ""
    """Folder or URI of the dataset of shards."""
    clips_per_shard: int = 512
    """Clips in each tar at most; 512 clips of 10 s take 200 to 300 MB."""
    max_shard_mb: float = MAX_SHARD_MB
    """Megabytes in each tar at most, by what the listing gives: 64 kB for each second of a clip, else the size of its file.
    Clips of neither count nothing; 0 bounds by clips alone."""
    max_bad_fraction: float = 0.05
    """The job fails when a larger share of the clips failed, from 0 to 1. Filtered clips do not count."""
    decode: Literal["actor", "reader"] = "actor"
    """Where the model's input is decoded: beside the model, or by the CPU tasks that read, for GPU nodes short of cores."""
    licence: str = "other"
    """Licence of the audio and captions, as the dataset card states it; an identifier of the Hugging Face hub."""
    firewall: DecontaminationConfig = field(default_factory=DecontaminationConfig)
    """The leakage firewall."""
    audio_filter: AudioFilterConfig = audio_filter.OFF
    """Which clips are left out for their sound. The named configs leave out silence; jobs that began before there was
    this field go on without."""


def fill(
    config: CaptionConfig, out: str, planned: dict[str, Any], checkpoint_info: "CheckpointInfo[CaptionerConfig]"
) -> None:
    """Write every shard of a published plan that is not committed, then the card; a finished dataset is left alone."""
    if not write_shards(config, out, planned, checkpoint_info) and job_stats.finalized(out, planned):
        log.info("caption: %s is complete already", out)
    else:
        job_stats.finalize(out, planned, config.max_bad_fraction)


def write_shards(
    config: CaptionConfig, out: str, planned: dict[str, Any], checkpoint_info: "CheckpointInfo[CaptionerConfig]"
) -> int:
    """Write the shards that are not committed; return how many there were."""
    commit.recover(out)
    todo = plan.missing(out, planned)
    num_shards = plan.num_shards(planned)
    log.info("caption: %d clips, %d shards, %d committed", planned["num_clips"], num_shards, num_shards - len(todo))
    if todo and config.audio_filter.drop_copies:
        task = Fingerprinter(make_reader(config, out, planned, checkpoint_info), _guiding_tags(config))
        fingerprint_pass.run(out, num_shards, task)
    if todo:
        max_mb = planned["made_from"].get("max_shard_mb") or 0
        live = job_stats.ProgressReporter(plan.clips_in(out, planned, todo), config.actors.device, max_mb)
        for row in engine.rows(build_graph(config, out, planned, todo, checkpoint_info)):
            live.add(row)
    return len(todo)


def build_graph(
    config: CaptionConfig,
    out: str,
    planned: dict[str, Any],
    todo: list[int],
    checkpoint_info: "CheckpointInfo[CaptionerConfig]",
) -> "ray.data.Dataset":
    """Wire Reader -> Captioner -> write; every row that comes out tells of one committed shard."""
    numbers = engine.shard_numbers(todo)
    read = engine.map_tasks(numbers, make_reader(config, out, planned, checkpoint_info))
    captioned = engine.map_actors(read, CaptionActor, (config,), config.actors)
    return engine.map_tasks(captioned, partial(write, out=out, planned=planned))


def make_reader(
    config: CaptionConfig, out: str, planned: dict[str, Any], checkpoint_info: "CheckpointInfo[CaptionerConfig]"
) -> Reader:
    """Return what the reading tasks of a job do."""
    num_decoded = round(checkpoint_info.network.clip_s * audio.SAMPLE_RATE_HZ) if config.decode == "reader" else 0
    tables = tuple(storage.resolve(uri) for uri in config.firewall.fingerprints)
    return Reader(out, planned, tables, num_decoded, config.audio_filter)


def _guiding_tags(config: CaptionConfig) -> frozenset[str] | None:
    """Return the tags of which a clip needs one to be captioned, or None where it needs none."""
    from train import checkpoint

    needed = config.guidance == ("tags",)
    return frozenset(storage.read_json(storage.join(config.captioner, checkpoint.TAGS_FILE))) if needed else None


def write(batch: pa.Table, out: str, planned: dict[str, Any]) -> pa.Table:
    """Publish one shard and return its counts."""
    shard, clips = reader.unpack(batch)
    owner = storage.read_json(storage.join(out, run_dir.RUN_FILE))
    outcomes = [_outcome(clip, owner) for clip in clips]
    stats = shards.write(out, shard, outcomes, plan.part_of(planned, shard)["hash"])
    told = {
        **{name: stats[name] for name in ("shard", "tar_size", *job_stats.COUNTS)},
        "reasons": stats["reasons"],
        "duration_s": stats["duration_s"],
    }
    told |= {name: batch[name][0].as_py() for name in ("actor", "busy_s")}
    return pa.Table.from_pylist(
        [told | {"reasons": list(told["reasons"].items())}], schema=job_stats.SHARD_STATS_SCHEMA
    )


def check(config: CaptionConfig, checkpoint_info: "CheckpointInfo[CaptionerConfig]") -> None:
    """Raise InputError for a field that cannot be; `checkpoint_info` describes the captioner."""
    config.check(checkpoint_info.network)
    config.audio_filter.check()
    if not 0 <= config.max_bad_fraction <= 1:
        raise InputError("--max-bad-fraction", config.max_bad_fraction, "use a share from 0 to 1")


def _outcome(clip: dict[str, Any], owner: dict[str, Any]) -> shards.Outcome:
    if clip["status"] != "written":
        return shards.Outcome(**{name: clip[name] for name in ("key", "status", "stage", "reason", "detail")})
    meta: shards.SampleMeta = {
        "text": [caption["text"] for caption in clip["captions"]],
        "tag": clip["tags"],
        "mids": clip["mids"],
        "source_id": clip["source_id"],
        "origin": clip["origin"],
        "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "num_samples": clip["num_samples"],
        "sample_rate_hz": audio.SAMPLE_RATE_HZ,
        "captions": [provenance(caption, owner) for caption in clip["captions"]],
    }
    return shards.Outcome(
        key=clip["key"],
        status="written",
        stage="write",
        detail=clip["note"] or "",
        duration_s=clip["num_samples"] / audio.SAMPLE_RATE_HZ,
        flac=clip["flac"],
        meta=meta,
    )


def provenance(caption: dict[str, Any], owner: dict[str, Any]) -> shards.CaptionRecord:
    """Return the record of one caption: what it says and how it was made."""
    record: shards.CaptionRecord = {
        "text": caption["text"],
        "score": caption["score"],
        "model": owner["captioner"].rpartition("/")[2],
        "revision": owner["captioner_revision"],
        "decoding": caption["decoding"],
        "precision": owner["arithmetic"],
        "tags_given": caption["guidance"] == "tags",
    }
    if caption["guidance"] == "predicted":  # one text: readers that infer types stumble over lists that may be empty
        record["predicted_tags"] = LABEL_SEPARATOR.join(caption["tags"])
    return record
