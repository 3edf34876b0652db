"""Train the tag-guided captioner on captioned clips: `python -m train captioner <config>`."""

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline import audio, cli, sources, storage
from pipeline.cli import InputError
from train import checkpoint, data, losses, parallel
from train.data import Batch, ListedClips, Loader, Order
from train.launch import ScaleConfig, check, launch
from train.loop import Context, OptimConfig, finish, fit
from train.models.captioner import CaptionerConfig, TagGuidedCaptioner
from train.models.words import PAD, Vocabulary

log = logging.getLogger("train.captioner")
BROKEN_FILE = "broken.json"  # {key: reason} of listed clips that are not trained on


@dataclass(frozen=True, kw_only=True)
class TrainCaptionerConfig:
    """Train a captioner from CSVs of captioned clips and their audio."""

    source: tuple[str, ...] = ()
    """CSVs that list captioned clips, one after the other."""
    labelled: tuple[str, ...] = ()
    """CSVs of clips whose tags are to be trusted and whose captions, if any, are not: --label-phrases stand in for them."""
    exclude_folds: tuple[str, ...] = ()
    """Never train on rows with one of these values in the fold column, such as a fold kept for evaluation."""
    label_phrases: tuple[str, ...] = ()
    """Captions for rows that have tags and no caption, with {} for the tags; empty leaves such rows out."""
    init_audio: str = ""
    """Checkpoint whose audio encoder this one starts from, of any kind; empty starts at random."""
    freeze_audio: bool = False
    """Keep the audio encoder's weights and BatchNorm statistics as they are, dropout on: the released recipe."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    max_bad_fraction: float = 0.05
    """The job fails when a larger share of the clips cannot be read, from 0 to 1; the others are left out and named."""
    tag_dropout: float = 0.25
    """Share of the clips trained without their tags, so that one model serves guided and unguided captions."""
    tag_loss: float = 1.0
    """Weight of the tagging head's loss: from scratch it stands in for the AudioSet weights BLAT starts from."""
    label_smoothing: float = 0.1
    """Probability spread over all other words."""
    min_word_count: int = 1
    """Rarer words become <unk>."""
    network: CaptionerConfig = field(default_factory=CaptionerConfig)
    """The model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers."""


def run(config: TrainCaptionerConfig) -> None:
    """Train and publish a captioner; a finished one is left alone, an interrupted one goes on."""
    clips, config = _check(config)
    identity = {"content": data.fingerprint(clips)}
    if config.freeze_audio and not config.init_audio:
        raise InputError("--init-audio", "", "a frozen audio encoder needs weights to start from")
    if config.init_audio:
        config = dataclasses.replace(config, init_audio=storage.resolve(config.init_audio))
        revision = checkpoint.describe_audio(config.init_audio, "--init-audio", config.network.audio)
        identity["init_audio_revision"] = revision
    free = ("scale", "source", "labelled", "max_bad_fraction", "init_audio")
    out = cli.claim(config.out, config, identity, ignore=free)
    if checkpoint.exists(out):
        log.info("captioner: %s is complete already", out)
        return
    broken = _find_broken(clips, out, config.max_bad_fraction)
    clips = _clips(config, broken)
    check(config.scale, config.optim, len(clips.keys))
    log.info("captioner: %d captioned clips", len(clips.keys))
    launch(train, {"config": config, "out": out, "broken": broken}, config.scale, out)
    if not checkpoint.exists(out):
        raise cli.JobError(f"training ended without a checkpoint in {out}")
    log.info("captioner: wrote %s", out)


def train(job: dict[str, Any], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    config: TrainCaptionerConfig = job["config"]
    clips = _clips(config, job["broken"])
    vocabulary = Vocabulary.build((text for texts in clips.texts for text in texts), config.min_word_count)
    tags = sorted({tag for names in clips.tags for tag in names})
    torch.manual_seed(config.optim.seed)
    network = TagGuidedCaptioner(config.network, vocabulary, tags)
    if config.init_audio:
        checkpoint.start_audio(network.encoder.cnn, config.init_audio)
    if config.freeze_audio:
        network.encoder.cnn.freeze()
    order = Order(num_clips=len(clips.keys), batch_size=config.optim.batch_size, seed=config.optim.seed)
    num_samples = round(config.network.clip_s * audio.SAMPLE_RATE_HZ)
    loader = Loader(clips, order, num_samples, context.rank, context.world_size)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        truth = network.multi_hot(batch.tags).to(context.device)
        given = truth * (torch.rand(len(truth), 1, device=context.device) >= config.tag_dropout)
        words = _encode(vocabulary, batch.texts).to(context.device)
        waveform, num = batch.waveform.to(context.device), batch.num_samples.to(context.device)
        logits, tag_logits = model(waveform, num, given, words, sample_rate_hz=audio.SAMPLE_RATE_HZ)
        word_loss = losses.caption(logits, words[:, 1:], PAD, config.label_smoothing)
        return word_loss + config.tag_loss * losses.tagging(tag_logits, truth) if config.network.tagger else word_loss

    model = parallel.wrap(network, context.device, context.world_size)
    last = fit(model, loss, loader, config.optim, context, job["out"])
    if context.leads:
        lineage = {
            "stage": "train captioner",
            "source": list(config.source),
            "labelled": list(config.labelled),
            "exclude_folds": list(config.exclude_folds),
            "init_audio": config.init_audio,
            "num_clips": len(clips.keys),
            "broken_clips": job["broken"],
            "last_epoch_loss": last,
        }
        checkpoint.save(job["out"], network, lineage, clips.keys)
        finish(job["out"])


def _check(config: TrainCaptionerConfig) -> tuple[ListedClips, TrainCaptionerConfig]:
    """Find out what is wrong with the command before any work, and make its paths absolute."""
    if not config.source:
        raise InputError("--source", config.source, "give one or more CSVs that list captioned clips")
    if config.labelled and not config.label_phrases:
        raise InputError(
            "--label-phrases", config.label_phrases, "give phrases with {} for the tags of --labelled clips"
        )
    for phrase in config.label_phrases:
        cli.check_template("--label-phrases", phrase)
    source, labelled = (tuple(map(storage.resolve, listings)) for listings in (config.source, config.labelled))
    config = dataclasses.replace(config, source=source, labelled=labelled)
    clips = _clips(config, ())
    if not clips.keys:
        raise InputError("--source", config.source, "no row has a caption; add captions or --label-phrases")
    check(config.scale, config.optim, len(clips.keys))
    return clips, config


def _find_broken(clips: ListedClips, out: str, max_bad_fraction: float) -> dict[str, str]:
    """Return {key: reason} of clips that cannot be used; found once and kept, so that a resumed run has the same clips."""
    marker = storage.join(out, BROKEN_FILE)
    if storage.exists(marker):
        return dict(storage.read_json(marker))
    log.info("captioner: checking %d clips", len(clips.keys))
    broken = clips.find_broken()
    told = f"{len(broken)} of {len(clips.keys)} clips cannot be used, such as {dict(list(broken.items())[:5])}"
    if len(broken) > max_bad_fraction * len(clips.keys):
        raise cli.JobError(f"{told}: more than {max_bad_fraction:.0%}; allow more with --max-bad-fraction")
    if broken:
        log.warning("captioner: %s; they are left out", told)
    storage.publish_json(marker, broken)
    return broken


def _clips(config: TrainCaptionerConfig, broken: Collection[str]) -> ListedClips:
    captioned = [clip for source in config.source for clip in sources.read_clips(source)]
    labelled = [clip for source in config.labelled for clip in sources.read_clips(source, flag="--labelled")]
    listed = captioned + [dataclasses.replace(clip, captions=()) for clip in labelled]
    folds = {clip.fold for clip in listed}
    for fold in config.exclude_folds:
        if fold not in folds:
            raise InputError("--exclude-folds", fold, f"no clip is in this fold; there are {sorted(folds)}")
    return ListedClips([c for c in listed if c.fold not in config.exclude_folds], config.label_phrases, broken)


def _encode(vocabulary: Vocabulary, texts: list[str]) -> Tensor:
    rows = [torch.tensor(vocabulary.encode(text)) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)
