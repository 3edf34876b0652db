"""Contrastive pre-training on caption shards: `python -m train pretrain <config>`."""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import cli, shards, storage
from pipeline.cli import InputError
from train import checkpoint, data, losses, parallel
from train.data import Batch, Loader, Order, ShardClips, open_shards
from train.launch import ScaleConfig, check, launch
from train.loop import Context, OptimConfig, finish, fit
from train.models.captioner import TagGuidedCaptioner
from train.models.clap import Clap, ClapConfig
from train.models.text import build_tokenizer

log = logging.getLogger("train.pretrain")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Train the two towers on the captions of a dataset of shards."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    captions: str = ""
    """Overlay whose captions to use, such as one that `pipeline score` wrote; empty takes the shards' own."""
    keep_fraction: float = 1.0
    """Share of the clips to keep, by the overlay's best score, above 0 up to 1."""
    best_only: bool = False
    """Train on each clip's first caption only; otherwise on a random one of its captions each time."""
    init_audio: str = ""
    """Captioner checkpoint whose CNN the audio tower starts from, as BLAT starts both from PANNs; empty starts at random."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    vocab_size: int = 4_000
    """Largest size of the WordPiece vocabulary built from the captions."""
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
        about = checkpoint.describe(config.init_audio, TagGuidedCaptioner, "--init-audio")
        if about["network"]["audio"] != storage.plain(dataclasses.asdict(config.network.audio)):
            raise InputError("--init-audio", config.init_audio, "its CNN has another shape; use the matching config")
        identity["init_audio_revision"] = about["revision"]
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
    tokenizer = build_tokenizer((text for texts in clips.texts for text in texts), config.vocab_size)
    torch.manual_seed(config.optim.seed)
    network = Clap(config.network, tokenizer)
    if config.init_audio:
        captioner = checkpoint.load(config.init_audio, TagGuidedCaptioner).model
        network.audio_encoder.load_state_dict(captioner.encoder.cnn.state_dict())
    order = Order(num_clips=len(clips.keys), batch_size=config.optim.batch_size, seed=config.optim.seed)
    loader = Loader(clips, order, network.clip_samples, context.rank, context.world_size)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        tokens, mask = network.tokenize(batch.texts)
        inputs = (batch.waveform, batch.num_samples, tokens, mask)
        audio, text, scale = model(*(tensor.to(context.device) for tensor in inputs))
        return losses.contrastive(audio, text, scale, parallel.gather)

    model = parallel.wrap(network, context.device, context.world_size)
    last = fit(model, loss, loader, config.optim, context, job["out"])
    if context.leads:
        lineage = _lineage(config, len(clips.keys)) | {"last_epoch_loss": last}
        checkpoint.save(job["out"], network, lineage, clips.keys)
        finish(job["out"])


def _clips(config: PretrainConfig) -> ShardClips:
    return open_shards(config.data, config.captions, config.keep_fraction, config.best_only)


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
        "overlay": None,
    }
    if config.captions:
        lineage["overlay"] = shards.read_overlay(config.data, config.captions)[1]
    return lineage
