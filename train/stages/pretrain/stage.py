"""The command of pre-training, and what each worker does."""

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from pipeline import storage
from pipeline.dataset import assigned, overlays, shards
from train.data import clip_sets, datasets
from train.data.clip_sets import Mixture
from train.data.loader import Clips
from train.launch import Worker
from train.stages import training
from train.stages.pretrain import clips, towers
from train.stages.pretrain.config import PretrainConfig
from train.stages.training import TrainingTask
from train.trainer import performance
from train.trainer.context import Context
from train.trainer.hooks import Hooks
from train.validation import pairs

log = logging.getLogger(__name__)


def run(config: PretrainConfig) -> None:
    """Train and publish a two-tower model; a finished one is left alone, an interrupted one goes on."""
    config.check()
    config = training.with_absolute_paths(config, "data", "mixture", "validation", "init", "init_audio")
    parts, validation, weights = found = clips.read(config)
    clips.check_enough(config, found)
    identity = {
        "content": clip_sets.fingerprint(Mixture(parts)),
        "held_out": clip_sets.fingerprint(validation) if validation else None,
        "init_audio_revision": training.audio_revision(config.init_audio, config.network.audio),
        "init_revision": towers.init_revision(config),
        "mixture_weights": weights if config.mixture else None,
        "phrases": clip_sets.phrases_fingerprint(Mixture(parts)) if config.frame_weight else None,
    }

    def begin(out: str) -> Worker:
        datasets.check_present(parts)
        log.info("pretrain: clips: %s; held out: %d", _counts(config, parts), len(validation.keys) if validation else 0)
        towers.tokenizer(config, out, Mixture(parts))
        return partial(train, config, out, datasets.names(parts))

    training.run_once("pretrain", config, identity, begin)


def _counts(config: PretrainConfig, parts: Sequence[Clips]) -> str:
    """Return how many clips there are, in each of --data where these are not split by cluster."""
    if config.mixture:
        return f"{sum(len(part.keys) for part in parts)} in the shares of {config.mixture}"
    return ", ".join(f"{len(part.keys)} of {uri}" for part, uri in zip(parts, config.data, strict=True))


def train(config: PretrainConfig, out: str, clip_files: Sequence[str], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint. `clip_files` are names of the files of opened datasets."""
    parts, validation, _ = found = clips.read(config, clip_files)
    mixture = Mixture(parts)
    network, order = towers.build(config, out, mixture), clips.order(config, found)
    hooks = Hooks(
        groups=lambda: towers.groups(network, config),
        validate=pairs.measure(validation, context) if validation else None,
        validate_every_steps=config.validate_every_steps,
        extras=lambda: {"logit_scale": float(network.logit_scale.detach().exp())},
        flops_per_pair=towers.flops_per_pair(network, config),
        peak_flops=performance.peak_flops(context.device),
    )
    task = TrainingTask(
        network=network,
        clips=mixture,
        order=order,
        clip_s=network.config.clip_s,
        collate=towers.collate(config, network, towers.labels(config, mixture), towers.phrases(config, mixture, order)),
        backward=towers.objective(config),
        hooks=hooks,
        lineage=_lineage(config, len(mixture.keys)),
        trained_on=mixture.keys,
        selected_on=validation.keys if validation else (),
        last_record="last_epoch",
    )
    training.train(task, config, out, context)


def _lineage(config: PretrainConfig, num_clips: int) -> dict[str, object]:
    """Name the captions, captioner and filter this model comes from."""
    origins = [_provenance(uri) for uri in config.data]
    lineage = {
        "stage": "train pretrain",
        "data": list(config.data),
        "num_clips": num_clips,
        "init": config.init,
        "init_audio": config.init_audio,
        **({"mixture": config.mixture} if config.mixture else {}),
        **(origins[0] if len(origins) == 1 else {"origins": origins}),
        "keep_fraction": config.keep_fraction,
        "sample_fraction": config.sample_fraction,
        "best_only": config.best_only,
        "filter": storage.plain(dataclasses.asdict(config.filter)),
        "overlay": None,
        "audit": None,
    }
    if config.hard_negatives:
        lineage["hard_negatives"] = list(config.hard_negatives)
    if config.frame_weight:
        lineage["frame_weight"] = config.frame_weight
    for name, overlay in (("overlay", config.captions), ("audit", config.filter.audit)):
        if overlay:
            summaries = [overlays.read_info(uri, overlay) for uri in config.data]
            lineage[name] = summaries[0] if len(summaries) == 1 else summaries
    return lineage


def _provenance(data: str) -> dict[str, Any]:
    """Name what the captions of one dataset come from; {} of a listing."""
    if assigned.exists(storage.resolve(data)):
        return {"assigned": assigned.read_info(data)}
    return shards.provenance(data) if shards.finished(data) else {}
