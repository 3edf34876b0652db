"""Contrastive pre-training on caption shards: `python -m train pretrain <config>`."""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import audio, cli, shards, storage
from pipeline.cli import InputError
from pipeline.selection import SelectionConfig
from train import checkpoint, data, losses, parallel, state
from train.data import Batch, Loader, Order, ShardClips, open_shards
from train.launch import ScaleConfig, check, launch
from train.loop import Context, fit
from train.models import text
from train.models.clap import Clap, ClapConfig
from train.models.text import TextConfig
from train.optim import OptimConfig

log = logging.getLogger("train.pretrain")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(SelectionConfig):
    """Train the two towers on the captions of a dataset of shards."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    init_audio: str = ""
    """Checkpoint whose audio encoder the audio tower starts from: a captioner, a two-tower model, or released
    weights after `train convert`, as BLAT starts from PANNs. Empty starts at random."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    network: ClapConfig = field(default_factory=ClapConfig)
    """The model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers."""


def run(config: PretrainConfig) -> None:
    """Train and publish a two-tower model; a finished one is left alone, an interrupted one goes on."""
    clips = _clips(config)
    check(config.scale, config.optim, len(clips.keys))
    config = dataclasses.replace(config, data=clips.index.data)
    identity = {"content": data.fingerprint(clips)}
    if config.init_audio:
        config = dataclasses.replace(config, init_audio=storage.resolve(config.init_audio))
        revision = checkpoint.describe_audio(config.init_audio, "--init-audio", config.network.audio)
        identity["init_audio_revision"] = revision
    _check_text(config.network.text)
    out = cli.claim(config.out, config, identity, ignore=("scale", "data", "init_audio"))
    if checkpoint.exists(out):
        log.info("pretrain: %s is complete already", out)
        return
    log.info(
        "pretrain: %d of %d clips, captions from %s", len(clips.keys), len(clips.index), config.captions or "shards"
    )
    launch(train, {"config": config, "out": out}, config.scale, out)
    if not checkpoint.exists(out):
        raise cli.JobError(f"training ended without a checkpoint in {out}")
    log.info("pretrain: wrote %s", out)


def train(job: dict[str, Any], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    config: PretrainConfig = job["config"]
    clips = _clips(config)
    torch.manual_seed(config.optim.seed)
    text_encoder = text.build(config.network.text, (caption for captions in clips.texts for caption in captions))
    network = Clap(config.network, text_encoder)
    if config.init_audio:
        checkpoint.start_audio(network.audio_encoder, config.init_audio)
    order = Order(num_clips=len(clips.keys), batch_size=config.optim.batch_size, seed=config.optim.seed)
    num_samples = round(config.network.clip_s * audio.SAMPLE_RATE_HZ)
    loader = Loader(clips, order, num_samples, context.rank, context.world_size)

    def loss(model: nn.Module, batch: Batch, _step: int) -> Tensor:
        inputs = (batch.waveform, batch.num_samples, *text_encoder.tokenize(batch.texts))
        on_device = [tensor.to(context.device) for tensor in inputs]
        heard, said, scale = model(*on_device, sample_rate_hz=audio.SAMPLE_RATE_HZ)
        return losses.contrastive(heard, said, scale, parallel.gather)

    model = parallel.wrap(network, context.device, context.world_size)
    history = fit(model, loss, loader, config.optim, context, job["out"])
    if context.leads:
        lineage = _lineage(config, len(clips.keys)) | {"last_epoch_loss": history["epochs"][-1]["loss"]}
        checkpoint.save(job["out"], network, lineage, clips.keys)
        state.finish(job["out"], history)


def _check_text(config: TextConfig) -> None:
    """Find out before any engine starts that the named text encoder is there."""
    if config.name:
        try:
            text.pretrained(config)
        except ValueError as error:
            remedy = "give a name on the Hugging Face hub, a local folder, or '' to build a small one from the captions"
            raise InputError("--network.text.name", config.name, f"{error}; {remedy}") from None


def _clips(config: PretrainConfig) -> ShardClips:
    return open_shards(config.data, config)


def _lineage(config: PretrainConfig, num_clips: int) -> dict[str, Any]:
    """Name the captions, captioner and filter this model comes from."""
    lineage = {
        "stage": "train pretrain",
        "data": config.data,
        "num_clips": num_clips,
        "init_audio": config.init_audio,
        **shards.origin(config.data),
        "keep_fraction": config.keep_fraction,
        "best_only": config.best_only,
        "filter": storage.plain(dataclasses.asdict(config.filter)),
        "overlay": None,
        "audit": None,
    }
    for field_name, overlay in (("overlay", config.captions), ("audit", config.filter.audit)):
        if overlay:
            lineage[field_name] = shards.read_overlay(config.data, overlay)[1]
    return lineage
