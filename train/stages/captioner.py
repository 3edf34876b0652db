"""Train the tag-guided captioner on captioned clips: `python -m train captioner <config>`.

The checkpoint in `out` has the last weights, or their average over the last epochs (SWA); with --validation, the one of
the epoch that validated best lies in `out`/best.
"""

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline import audio, cli, errors, run_dir, sources, storage
from pipeline.errors import InputError
from train import checkpoint, parallel
from train.data import clip_sets
from train.data import undecodable as broken_clips
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader, LoaderConfig
from train.data.order import Order
from train.launch import ScaleConfig, check, launch
from train.losses import captioning
from train.models.captioner.model import CaptionerConfig, TagGuidedCaptioner
from train.models.captioner.vocabulary import PAD, Subwords, Vocabulary
from train.trainer import performance as speed
from train.trainer import run_page, state
from train.trainer.loop import Backward, Context, Hooks, Step, fit
from train.trainer.monitor import MonitorConfig, ScalarWriters
from train.trainer.optim import OptimConfig
from train.trainer.performance import PerformanceConfig
from train.validation import captions as validation
from train.validation import pairs

log = logging.getLogger(__name__)
BEST = "best"  # folder of the checkpoint that validated best


@dataclass(frozen=True, kw_only=True)
class TrainCaptionerConfig:
    """Train a captioner from CSVs of captioned clips and their audio."""

    source: tuple[str, ...] = ()
    """Captioned clips, one source after the other: CSVs, MACS.yaml, folders of shards."""
    labelled: tuple[str, ...] = ()
    """CSVs of clips whose tags are to be trusted and whose captions, if any, are not: --label-phrases stand in for them."""
    columns: str = ""
    """Columns of these tables that are named otherwise, as in file=path,captions=said."""
    validation: str = ""
    """Captioned clips, never trained on, that are captioned with beam 3 after each epoch; CIDEr-D tells the best epoch."""
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
    """Probability spread evenly over all other words."""
    final_teacher_forcing: float = 1.0
    """Share of words predicted from the true caption so far at the end of the schedule, from 1 at its start; the others
    are predicted from the model's own words (scheduled sampling)."""
    min_word_count: int = 1
    """Rarer words become <unk>."""
    num_subwords: int = 2000
    """Size of the vocabulary when the network writes subwords."""
    network: CaptionerConfig = field(default_factory=CaptionerConfig)
    """The model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    speed: PerformanceConfig = field(default_factory=PerformanceConfig)
    """Speed and memory."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Reading."""
    watch: MonitorConfig = field(default_factory=MonitorConfig)
    """Where numbers go."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers."""


def run(config: TrainCaptionerConfig) -> None:
    """Train and publish a captioner; a finished one is left alone, an interrupted one goes on."""
    clips, config = _check(config)
    identity: dict[str, object] = {"content": clip_sets.fingerprint(clips), "init_audio_revision": None}
    if config.freeze_audio and not config.init_audio:
        raise InputError("--init-audio", "", "a frozen audio encoder needs weights to start from")
    if config.init_audio:
        config = dataclasses.replace(config, init_audio=storage.resolve(config.init_audio))
        revision = checkpoint.describe_audio(config.init_audio, "--init-audio", config.network.audio)
        identity["init_audio_revision"] = revision
    free = ("scale", "source", "labelled", "max_bad_fraction", "init_audio", "loader", "watch", "speed", "columns")
    out = run_dir.claim(config.out, config, identity, ignore=free)
    if checkpoint.exists(out):
        state.clear(out)
        log.info("captioner: %s is complete already", out)
        return
    broken = broken_clips.find(clips, out, config.max_bad_fraction)
    clips = _clips(config, broken)
    unheard = {}
    if config.validation:
        unheard = broken_clips.find(
            validation.read(config.validation, columns=config.columns),
            out,
            config.max_bad_fraction,
            broken_clips.VALIDATION_FILE,
        )
    _check_clips(config, clips)
    log.info("captioner: %d captioned clips, %d more without a caption or broken", len(clips.keys), clips.left_out)
    job = {"config": config, "out": out, "broken": broken, "unheard": unheard}
    launch(train, job, config.scale, out, config.loader.ingest)
    if not checkpoint.exists(out):
        raise errors.JobError(f"training ended without a checkpoint in {out}")
    state.clear(out)
    run_page.write(out)
    log.info("captioner: wrote %s; its curves are in %s", out, storage.join(out, run_page.PAGE_FILE))


def train(job: dict[str, Any], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    config: TrainCaptionerConfig = job["config"]
    clips = _clips(config, job["broken"])
    vocabulary = _vocabulary(config, clips)
    tags = sorted({tag for names in clips.tags for tag in names})
    torch.manual_seed(config.optim.seed)
    network = TagGuidedCaptioner(config.network, vocabulary, tags)
    if config.init_audio:
        checkpoint.start_audio(network.encoder.cnn, config.init_audio)
    if config.freeze_audio:
        network.encoder.cnn.freeze()
    order = Order(sizes=(len(clips.keys),), batch_size=config.optim.batch_size, seed=config.optim.seed)
    num_samples = round(config.network.clip_s * audio.SAMPLE_RATE_HZ)
    where = (context.rank, context.world_size)
    loader = Loader(clips, order, num_samples, *where, config.loader, context.load, pin=context.device.type == "cuda")
    copied = bool(config.optim.ema_decay)
    ready = speed.prepare(network, context.device, context.world_size, config.optim.precision, config.speed, copied)
    lineage = {
        "stage": "train captioner",
        "source": list(config.source),
        "labelled": list(config.labelled),
        "validation": config.validation,
        "exclude_folds": list(config.exclude_folds),
        "init_audio": config.init_audio,
        "num_clips": len(clips.keys),
        "broken_clips": job["broken"],
        "broken_validation": job["unheard"],
        "num_tagged": sum(map(bool, clips.tags)),
        "tag_dropout": config.tag_dropout,
    }

    sinks = (
        ScalarWriters(config.watch, job["out"], storage.plain(dataclasses.asdict(config))) if context.leads else None
    )

    held = _held_out(config, job["unheard"])

    def save(uri: str, record: dict[str, Any]) -> None:
        assert isinstance(ready.evaluated, TagGuidedCaptioner)
        checkpoint.save(uri, ready.evaluated, {**lineage, "epoch": record}, clips.keys, held.keys if held else ())

    hooks = Hooks(
        validate=validation.measure(held, context) if held else None,
        keep=lambda record: save(storage.join(job["out"], BEST), record),
        sinks=tuple(sinks.all) if sinks else (),
    )
    steps = config.optim.epochs * order.steps_per_epoch
    objective = _objective(config, network, context, steps)
    try:
        history = fit(ready, objective, loader, config.optim, context, job["out"], hooks)
    finally:
        if sinks:
            sinks.close()
    if context.leads:
        lineage["skipped"] = history["skipped"]
        state.record(job["out"], history)
        save(job["out"], history["epochs"][-1])


def _held_out(config: TrainCaptionerConfig, unheard: Collection[str]) -> ListedClips | None:
    """Return the clips to validate on that can be read."""
    return validation.read(config.validation, unheard, config.columns) if config.validation else None


def _objective(config: TrainCaptionerConfig, network: TagGuidedCaptioner, context: Context, steps: int) -> Backward:
    """Return what adds the gradients of a step."""

    def objective(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        truth = network.multi_hot(batch.tags) * batch.valid[:, None]
        draws = np.random.default_rng([config.optim.seed, step.number, 1]).random(config.optim.batch_size)
        kept = torch.from_numpy(draws[context.rank :: context.world_size] >= config.tag_dropout)
        words = _encode(network.vocabulary, batch.texts).masked_fill(~batch.valid[:, None], PAD)
        inputs = (batch.waveform, batch.num_samples, truth * kept[:, None], words)
        waveform, num, given, words = (tensor.to(context.device, non_blocking=True) for tensor in inputs)
        true_prefix = _true_prefix(config, step.number, steps, words.shape[1] - 1)
        logits, tag_logits = model(waveform, num, given, words, audio.SAMPLE_RATE_HZ, true_prefix)
        value = captioning.caption(logits, words[:, 1:], PAD, config.label_smoothing, parallel.mean)
        if tag_logits is not None:
            value = value + config.tag_loss * captioning.tagging(tag_logits, truth.to(context.device), parallel.mean)
        value.backward()
        return value.detach()

    return objective


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
    if config.validation:
        held_out = validation.read(storage.resolve(config.validation), columns=config.columns)
        pairs.refuse_test_split(storage.resolve(config.validation), held_out.folds)
        config = dataclasses.replace(config, validation=storage.resolve(config.validation))
        if shared := sorted(set(held_out.keys) & set(clips.keys)):
            told = f"{len(shared)} of its clips are trained on, such as {shared[:3]}; give others, or --exclude-folds"
            raise InputError("--validation", config.validation, told)
    _check_numbers(config)
    if not clips.keys:
        raise InputError("--source", config.source, "no row has a caption; add captions or --label-phrases")
    if config.network.guided and not any(clips.tags):
        remedy = (
            "no clip has a tag to guide it; put AudioSet's segments tables and class labels beside AudioCaps' tables, "
        )
        raise InputError("--source", config.source, remedy + "or train without guidance: --network.no-guided")
    log.info("captioner: %d of %d clips have tags", sum(map(bool, clips.tags)), len(clips.keys))
    for part in (config.loader, config.watch):
        part.check()
    config.speed.check(config.scale.num_workers)
    _check_clips(config, clips)
    return clips, config


def _check_clips(config: TrainCaptionerConfig, clips: ListedClips) -> None:
    clip_sets.check_several(clips.keys, "--source", config.source)
    clip_sets.warn_alike(clips.texts, "--source", config.source)
    check(config.scale, config.optim, len(clips.keys))


def _check_numbers(config: TrainCaptionerConfig) -> None:
    for flag, value in (
        ("--final-teacher-forcing", config.final_teacher_forcing),
        ("--tag-dropout", config.tag_dropout),
        ("--max-bad-fraction", config.max_bad_fraction),
    ):
        if not 0 <= value <= 1:
            raise InputError(flag, value, "use a share from 0 to 1")
    if not 0 <= config.label_smoothing < 0.5:
        raise InputError("--label-smoothing", config.label_smoothing, "use a share from 0 to below 0.5")
    if config.network.subwords and config.num_subwords < 50:
        raise InputError("--num-subwords", config.num_subwords, "use 50 or more: letters and signs are parts too")
    if config.min_word_count < 1:
        raise InputError("--min-word-count", config.min_word_count, "use 1 or more")


def _clips(config: TrainCaptionerConfig, broken: Collection[str]) -> ListedClips:
    names = config.columns
    captioned = [clip for source in config.source for clip in sources.read_clips(source, column_names=names)]
    labelled = [clip for source in config.labelled for clip in sources.read_clips(source, (), "--labelled", names)]
    listed = captioned + [dataclasses.replace(clip, captions=()) for clip in labelled]
    folds = {clip.fold for clip in listed}
    for fold in config.exclude_folds:
        if fold not in folds:
            raise InputError("--exclude-folds", fold, f"no clip is in this fold; there are {sorted(folds)}")
    return ListedClips([c for c in listed if c.fold not in config.exclude_folds], config.label_phrases, broken)


def _vocabulary(config: TrainCaptionerConfig, clips: ListedClips) -> Vocabulary:
    texts = (text for texts in clips.texts for text in texts)
    if config.network.subwords:
        return Subwords.build_parts(texts, config.num_subwords)
    return Vocabulary.build(texts, config.min_word_count)


def _true_prefix(config: TrainCaptionerConfig, step: int, steps: int, length: int) -> Tensor | None:
    """Draw at which words the true prefix is given: one draw a word for the whole batch, the same on every rank."""
    if config.final_teacher_forcing == 1:
        return None
    share = 1 - (1 - config.final_teacher_forcing) * (step + 1) / steps
    return torch.from_numpy(np.random.default_rng([config.optim.seed, step]).random(length) < share)


def _encode(vocabulary: Vocabulary, texts: list[str]) -> Tensor:
    rows = [torch.tensor(vocabulary.encode(text)) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)
