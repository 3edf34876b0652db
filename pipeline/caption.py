"""Tagged audio -> caption shards on Ray Data: `python -m pipeline caption <config>`.

The graph, top to bottom in `build_graph`: a row is one shard of the plan, so a shard can be neither split nor merged by the
engine. Between the stages travel encoded bytes in Arrow columns, never Python objects and never waveforms.

    shard numbers -> read (CPU tasks): plan rows, bytes, check, canonical FLAC
                  -> Captioner (actors, on GPUs where asked): decode, batch, beam search
                  -> write (CPU tasks): tar, ledger, commit mark
"""

import dataclasses
import logging
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline import audio, card, cli, engine, plan, shards, sources, storage
from pipeline.cli import InputError, JobError
from pipeline.engine import ActorConfig
from train.models.decoding import Decoding

if TYPE_CHECKING:
    import ray.data

log = logging.getLogger("pipeline.caption")
DECODERS = 2  # threads beside each actor's model; libsndfile releases the interpreter lock
CLIP = pa.struct(  # one clip on its way; a row of the graph holds a list of these
    [
        *plan.SCHEMA,
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("num_samples", pa.int64()),
        ("flac", pa.large_binary()),
        ("text", pa.list_(pa.string())),
        ("score", pa.list_(pa.float64())),
        ("predicted_tags", pa.list_(pa.string())),
    ]
)
SHARD = pa.schema([("shard", pa.int32()), ("clips", pa.list_(CLIP))])


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Write captions for tagged clips with a captioner, into WebDataset shards."""

    source: str = ""
    """CSV that lists the clips: AudioSet segments, or any table with a file column."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    captioner: str = ""
    """Checkpoint directory that `train captioner` wrote."""
    out: str = ""
    """Folder or URI of the dataset of shards."""
    guidance: Literal["tags", "predicted", "none"] = "tags"
    """Give the captioner each clip's tags, those it hears itself, or none; with tags, clips without any are filtered out."""
    tag_threshold: float = 0.3
    """Probability from which a predicted tag guides, from 0 to 1; a clip with none goes unguided."""
    decoding: Decoding = field(default_factory=Decoding)
    """How captions are chosen."""
    clips_per_shard: int = 512
    """Clips in each tar but the last; 512 clips of 10 s are about 250 MB."""
    batch_size: int = 32
    """Clips in one pass of the model; the last batch of a shard may be smaller."""
    max_bad_fraction: float = 0.05
    """The job fails when a larger share of the clips failed, from 0 to 1. Filtered clips do not count."""
    actors: ActorConfig = field(default_factory=ActorConfig)
    """The pool of captioner actors."""


def run(config: CaptionConfig) -> None:
    """Fill the plan: shards that are committed are skipped, and their inputs are not opened again."""
    about, clips = _check(config)
    config = dataclasses.replace(
        config, source=storage.resolve(config.source), captioner=storage.resolve(config.captioner)
    )
    free = ("max_bad_fraction", "actors", "source", "captioner")  # the plan and the revision stand for the last two
    out = cli.claim(config.out, config, identity={"captioner_revision": about["revision"]}, ignore=free)
    planned = plan.write(out, clips, config.clips_per_shard)
    done = set(shards.committed(out))
    todo = [shard for shard in range(planned["num_shards"]) if shard not in done]
    log.info("caption: %d clips, %d shards, %d committed already", len(clips), planned["num_shards"], len(done))
    if todo:
        _fill(config, out, planned, todo)
    stats = [shards.read_stats(out, shard) for shard in range(planned["num_shards"])]
    strangers = [stat["shard"] for stat in stats if stat["plan_hash"] != planned["hash"]]
    if strangers:
        raise JobError(f"shards {strangers} in {out} are of another plan; delete them and run again")
    _conclude(config, out, planned, stats)


def build_graph(config: CaptionConfig, out: str, plan_hash: str, todo: list[int]) -> "ray.data.Dataset":
    """Wire read -> Captioner -> write; every row that comes out is the stats of one committed shard."""
    numbers = engine.shard_numbers(todo)
    in_arrow: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 0.5}  # mostly waiting
    read_shards = numbers.map_batches(partial(read, out=out), **in_arrow)
    captioned = engine.map_actors(read_shards, Captioner, (config,), config.actors)
    return captioned.map_batches(partial(write, out=out, plan_hash=plan_hash), **in_arrow)


def read(batch: pa.Table, out: str) -> pa.Table:
    """Turn a shard number into its clips as canonical FLAC; a clip that cannot be read becomes a failed row."""
    (shard,) = batch["shard"].to_pylist()
    return _shard(shard, [_read_clip(row) for row in plan.read_shard(out, shard)])


class Captioner:
    """The actor: holds the model, decodes a shard's clips in threads and captions them in batches of one shape."""

    def __init__(self, config: CaptionConfig) -> None:
        import torch  # here, so that the CPU tasks of this module start without it

        from train import checkpoint

        self.device = torch.device(config.actors.device)
        self.config = config
        self.model = checkpoint.load(config.captioner).model.to(self.device)
        self.clip_samples = round(self.model.config.clip_s * audio.SAMPLE_RATE_HZ)
        self.known = set(self.model.tags)
        self.decoders = ThreadPoolExecutor(DECODERS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add `text` and `score` to the clips of one shard."""
        (shard,) = batch["shard"].to_pylist()
        clips = batch["clips"].combine_chunks().flatten().to_pylist()
        for clip in clips:
            self._filter(clip)
        ready = [clip for clip in clips if clip["status"] == "written"]
        size = self.config.batch_size
        batches = [ready[first : first + size] for first in range(0, len(ready), size)]
        ahead = self._decode(batches[0]) if batches else []
        for rows, following in zip(batches, [*batches[1:], []], strict=True):
            waveforms, ahead = [future.result() for future in ahead], self._decode(following)
            self._caption(rows, np.stack(waveforms))
        return _shard(shard, clips)

    def _filter(self, clip: dict[str, Any]) -> None:
        if clip["status"] != "written" or self.config.guidance != "tags":
            return
        if not clip["tags"]:
            clip.update(status="filtered", stage="caption", reason="no_tags", detail="guidance needs a tag")
        elif not self.known & set(clip["tags"]):
            detail = f"the captioner knows none of {clip['tags']}"
            clip.update(status="filtered", stage="caption", reason="unknown_tags", detail=detail)

    def _decode(self, clips: list[dict[str, Any]]) -> list[Future[np.ndarray]]:
        """Start decoding a batch: the next one's runs while the model works on this one's."""
        return [
            self.decoders.submit(lambda flac: audio.fit(audio.decode(flac), self.clip_samples), clip["flac"])
            for clip in clips
        ]

    def _caption(self, clips: list[dict[str, Any]], waveforms: np.ndarray) -> None:
        import torch

        waveform = torch.from_numpy(waveforms).to(self.device)
        num_samples = torch.tensor([min(clip["num_samples"], self.clip_samples) for clip in clips]).to(self.device)
        heard = self.model.listen(waveform, num_samples, audio.SAMPLE_RATE_HZ)
        if self.config.guidance == "predicted":
            tags = self.model.predict_tags(heard, self.config.tag_threshold)
            for clip, row in zip(clips, tags.tolist(), strict=True):
                clip["predicted_tags"] = [tag for tag, hot in zip(self.model.tags, row, strict=True) if hot]
        else:
            given = [clip["tags"] if self.config.guidance == "tags" else [] for clip in clips]
            tags = self.model.multi_hot(given).to(self.device)
        keys = [clip["key"] for clip in clips]
        found = self.model.generate(heard, tags, self.config.decoding, keys)
        for clip, captions in zip(clips, found, strict=True):
            if captions:
                clip["text"], clip["score"] = [c.text for c in captions], [c.score for c in captions]
            else:
                clip.update(status="failed", stage="caption", reason="no_caption", detail="every caption was empty")


def write(batch: pa.Table, out: str, plan_hash: str) -> pa.Table:
    """Publish one shard and return its counts."""
    (shard,) = batch["shard"].to_pylist()
    owner = storage.read_json(storage.join(out, cli.RUN_FILE))
    clips = batch["clips"].combine_chunks().flatten().to_pylist()
    stats = shards.write(out, shard, [_outcome(clip, owner) for clip in clips], plan_hash)
    return pa.table({name: [stats[name]] for name in ("shard", "in", "written", "filtered", "failed")})


def _check(config: CaptionConfig) -> tuple[dict[str, Any], list[sources.Clip]]:
    """Find out what is wrong with the command before any engine starts."""
    from train import checkpoint
    from train.models.captioner import TagGuidedCaptioner

    clips = sources.read_clips(config.source, config.folds)
    about = checkpoint.describe(config.captioner, "--captioner", TagGuidedCaptioner)
    needs = {"tags": "guided", "predicted": "tagger", "none": ""}[config.guidance]
    if needs and not about["network"][needs]:
        remedy = f"this captioner has no such input ({needs} is false in its config.json); use --guidance none"
        raise InputError("--guidance", config.guidance, remedy)
    if not 0 <= config.tag_threshold <= 1:
        raise InputError("--tag-threshold", config.tag_threshold, "use a probability from 0 to 1")
    try:
        config.decoding.check()
    except ValueError as error:
        raise InputError("--decoding", str(config.decoding), str(error)) from None
    if config.batch_size < 1:
        raise InputError("--batch-size", config.batch_size, "use 1 or more")
    config.actors.check()
    if config.out:
        plan.check(storage.resolve(config.out), clips, config.clips_per_shard)
    if not 0 <= config.max_bad_fraction <= 1:
        raise InputError("--max-bad-fraction", config.max_bad_fraction, "use a share from 0 to 1")
    return about, clips


def _fill(config: CaptionConfig, out: str, planned: dict[str, Any], todo: list[int]) -> None:
    started = time.monotonic()
    total: Counter[str] = Counter()
    for row in engine.rows(build_graph(config, out, planned["hash"], todo)):
        total.update({"shards": 1, **{name: row[name] for name in ("in", "written", "filtered", "failed")}})
        elapsed_s = time.monotonic() - started
        left_s = elapsed_s / total["shards"] * (len(todo) - total["shards"])
        counts = f"{total['written']} written, {total['filtered']} filtered, {total['failed']} failed"
        log.info(
            "caption: %d of %d shards, %s, %.1f clips/s, %.0f s left",
            total["shards"], len(todo), counts, total["in"] / elapsed_s, left_s,
        )  # fmt: skip


def _conclude(config: CaptionConfig, out: str, planned: dict[str, Any], stats: list[dict[str, Any]]) -> None:
    """Publish sizes and card, or fail when too many clips did; the shards stay either way."""
    counts = {name: sum(shard[name] for shard in stats) for name in ("in", "written", "filtered", "failed")}
    reasons: Counter[str] = sum((Counter(shard["reasons"]) for shard in stats), Counter())
    assert counts["in"] == planned["num_clips"] == counts["written"] + counts["filtered"] + counts["failed"], counts
    told = f"{counts['in']} clips = {counts['written']} written + {counts['filtered']} filtered + {counts['failed']} failed"
    told += f" ({', '.join(f'{reason} {n}' for reason, n in reasons.most_common())})" if reasons else ""
    if counts["failed"] > config.max_bad_fraction * counts["in"]:
        remedy = f"the shards are kept; look into {out}/*.parquet, or allow more with --max-bad-fraction"
        raise JobError(f"{told}: more than {config.max_bad_fraction:.0%} failed; {remedy}")
    if not counts["written"]:
        raise JobError(f"{told}: nothing to train on; the shards' ledgers in {out} tell why")
    sizes = {shards.tar_name(shard["shard"]): shard["written"] for shard in stats}
    storage.publish(storage.join(out, card.CARD_FILE), card.render(out, planned, counts, dict(reasons)).encode())
    storage.publish_json(storage.join(out, "sizes.json"), sizes)
    log.info("caption: %s: %s", out, told)


def _read_clip(row: dict[str, Any]) -> dict[str, Any]:
    try:
        samples = sources.read_samples(row["uri"])
    except audio.AudioError as error:
        return {**row, "status": "failed", "stage": "read", "reason": error.reason, "detail": error.detail}
    return {**row, "status": "written", "num_samples": len(samples), "flac": audio.encode_flac(samples)}


def _shard(shard: int, clips: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"shard": shard, "clips": clips}], schema=SHARD)


def _outcome(clip: dict[str, Any], owner: dict[str, Any]) -> shards.Outcome:
    if clip["status"] != "written":
        return shards.Outcome(
            key=clip["key"], status=clip["status"], stage=clip["stage"], reason=clip["reason"], detail=clip["detail"]
        )
    made_by = {
        "model": owner["captioner"].rpartition("/")[2],
        "revision": owner["captioner_revision"],
        "decoding": str(Decoding(**owner["decoding"])),
        "tags_given": owner["guidance"] == "tags",
    }
    if clip["predicted_tags"] is not None:
        made_by["predicted_tags"] = clip["predicted_tags"]
    meta = {
        "text": clip["text"],
        "tag": clip["tags"],
        **{name: clip[name] for name in ("mids", "source_id", "start_s", "end_s", "num_samples")},
        "sample_rate_hz": audio.SAMPLE_RATE_HZ,
        "captions": [{"text": t, "score": s, **made_by} for t, s in zip(clip["text"], clip["score"], strict=True)],
    }
    return shards.Outcome(
        key=clip["key"],
        status="written",
        stage="write",
        duration_s=clip["num_samples"] / audio.SAMPLE_RATE_HZ,
        flac=clip["flac"],
        meta=meta,
    )
