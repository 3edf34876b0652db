"""Fine-tuning of an audio encoder on labelled clips: `python -m train finetune <config>`.

Fine-tuning for retrieval is `train pretrain` with --init, for captions `train captioner` with --init-audio.
"""

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pipeline import audio, run_dir, sources, storage
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip
from train import checkpoint, parallel
from train.data import augment
from train.data import clip_sets as data
from train.data.clip_sets import ClipSubset, ListedClips
from train.data.loader import Batch, Loader, LoaderConfig
from train.data.order import Order
from train.launch import ScaleConfig, check, launch
from train.models import linear
from train.models.blocks import blocks
from train.models.classifier import Classifier, ClassifierConfig
from train.models.encoders.mobilenet import MobileNetConfig
from train.trainer import performance as speed
from train.trainer import run_page, state
from train.trainer.loop import Backward, Context, Hooks, Step, fit
from train.trainer.monitor import MonitorConfig, ScalarWriters
from train.trainer.optim import Group, OptimConfig
from train.trainer.performance import PerformanceConfig
from train.validation import pairs

log = logging.getLogger(__name__)
BEST = "best"
PENALTY = 1e-2  # of the squared weights of the linear layer that --probe-first fits
RAREST = 4.0  # most times that balancing repeats a clip in an epoch


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune an audio encoder and a linear layer over it on labelled clips."""

    data: str = ""
    """Listing of labelled clips."""
    columns: str = ""
    """Columns of it that are named otherwise, as in file=path,labels=tags."""
    folds: tuple[str, ...] = ()
    """Train on these folds of it; empty takes all that are not validated on."""
    validation_folds: tuple[str, ...] = ()
    """Measure on these folds of it each epoch; the best model goes to <out>/best."""
    init_audio: str = ""
    """Checkpoint whose audio encoder is fine-tuned: two towers, a tagger, a captioner or a classifier."""
    several_labels: bool = False
    """A clip may have any number of labels (a sigmoid each); otherwise exactly one (softmax)."""
    clip_s: float = 10.0
    """Clips are cropped or zero-padded to this length in training, seconds; longer ones are averaged when measured."""
    spec_augment: bool = False
    """Blank stripes of the log-mel, as in pre-training."""
    mixup: float = 0.0
    """Mix clips and their labels in pairs, by a share from Beta(x, x) (Zhang et al. 2018, arXiv 1710.09412); 0 is off."""
    balance: bool = False
    """Repeat clips of rare labels in each epoch, up to four times."""
    probe_first: bool = False
    """Begin with the linear layer that fits the frozen encoder best, not with a random one (Kumar et al. 2022, arXiv
    2202.10054); costs one pass over the clips."""
    keep_statistics: bool = False
    """Leave BatchNorm's averages as they are and use them in training too: small batches have poor ones of their own."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each block of the encoder to the one below it; the linear layer has the full rate."""
    out: str = ""
    """Folder or URI of the checkpoint."""
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


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What is learned and what on."""

    labels: tuple[str, ...]
    training: tuple[Clip, ...]
    validation: tuple[Clip, ...] = ()


def run(config: FinetuneConfig) -> None:
    """Fine-tune and publish a classifier; a finished one is left alone, an interrupted one goes on."""
    listed = sources.read_clips(config.data, flag="--data", column_names=config.columns)
    if config.validation_folds:
        pairs.refuse_test_split(storage.resolve(config.data), config.validation_folds, "--validation-folds")
    chosen = [c for c in listed if c.fold in config.validation_folds]
    rest = [c for c in listed if c.fold not in config.validation_folds and (not config.folds or c.fold in config.folds)]
    if config.validation_folds and not chosen:
        raise InputError("--validation-folds", config.validation_folds, "no clip of --data is in these folds")
    labels = sources.tag_vocabulary(rest)
    finetune(config, Labelled(labels=tuple(labels), training=tuple(rest), validation=tuple(chosen)))


def finetune(config: FinetuneConfig, told: Labelled) -> None:
    """Fine-tune on given clips; see `run`. Raises InputError for what cannot be learned of them."""
    _check(config, told)
    config = dataclasses.replace(config, init_audio=storage.resolve(config.init_audio))
    clips = _clips(config, told)
    check(config.scale, config.optim, len(clips.keys))
    revision = checkpoint.describe(config.init_audio, "--init-audio", *checkpoint.KINDS).revision
    content = data.fingerprint(ListedClips([*told.training, *told.validation], ("{}",), keep_all=True))
    identity = {"content": content, "init_audio_revision": revision, "labels": list(told.labels)}
    free = ("scale", "data", "init_audio", "loader", "watch", "speed", "columns")
    out = run_dir.claim(config.out, config, identity, ignore=free)
    if checkpoint.exists(out):
        state.clear(out)
        log.info("finetune: %s is complete already", out)
        return
    log.info(
        "finetune: %d labels, %d clips, %d to validate on", len(told.labels), len(told.training), len(told.validation)
    )
    launch(train, {"config": config, "out": out, "told": told}, config.scale, out, config.loader.ingest)
    if not checkpoint.exists(out):
        raise JobError(f"training ended without a checkpoint in {out}")
    state.clear(out)
    run_page.write(out)
    log.info("finetune: wrote %s; its curves are in %s", out, storage.join(out, run_page.PAGE_FILE))


def train(job: dict[str, Any], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    config: FinetuneConfig = job["config"]
    told: Labelled = job["told"]
    clips = _clips(config, told)
    network = build(config, told.labels)
    if config.probe_first:
        start_head(network.to(context.device), ListedClips(told.training, ("{}",)), context)
    optim = config.optim
    order = Order(sizes=(len(clips.keys),), batch_size=optim.batch_size, seed=optim.seed)
    num_samples, where = round(config.clip_s * audio.SAMPLE_RATE_HZ), (context.rank, context.world_size)
    loader = Loader(clips, order, num_samples, *where, config.loader, context.load, pin=context.device.type == "cuda")
    copied = bool(optim.ema_decay)
    ready = speed.prepare(network, context.device, context.world_size, optim.precision, config.speed, copied)
    trained, validated = sorted({clip.key for clip in told.training}), [clip.key for clip in told.validation]
    lineage = {
        "stage": "train finetune",
        "data": config.data,
        "init_audio": config.init_audio,
        "num_clips": len(trained),
        "labels": len(told.labels),
    }

    def save(uri: str, record: dict[str, Any]) -> None:
        assert isinstance(ready.evaluated, Classifier)
        checkpoint.save(uri, ready.evaluated, {**lineage, "epoch": record}, trained, validated)

    sinks = (
        ScalarWriters(config.watch, job["out"], storage.plain(dataclasses.asdict(config))) if context.leads else None
    )
    hooks = Hooks(
        groups=groups(network, config.layer_decay),
        validate=pairs.measure_labels(ListedClips(told.validation, ("{}",)), context) if told.validation else None,
        keep=lambda record: save(storage.join(job["out"], BEST), record),
        sinks=tuple(sinks.all) if sinks else (),
    )
    try:
        history = fit(ready, _objective(config, network, context), loader, optim, context, job["out"], hooks)
    finally:
        if sinks:
            sinks.close()
    if context.leads:
        lineage["skipped"] = history["skipped"]
        state.record(job["out"], history)
        save(job["out"], history["epochs"][-1])


def build(config: FinetuneConfig, labels: Sequence[str]) -> Classifier:
    """Return the classifier to be trained: the encoder of the checkpoint, a fresh linear layer."""
    torch.manual_seed(config.optim.seed)
    encoder = checkpoint.describe(config.init_audio, "--init-audio", *checkpoint.KINDS).network.audio
    if isinstance(encoder, MobileNetConfig):
        encoder = dataclasses.replace(encoder, num_classes=0)
    exclusive = not config.several_labels
    network = Classifier(ClassifierConfig(audio=encoder, exclusive=exclusive, clip_s=config.clip_s), labels)
    checkpoint.start_audio(network.encoder, config.init_audio)
    network.encoder.statistics_kept = config.keep_statistics
    if config.spec_augment:
        augment.add_spec_augment(network)
    return network


def start_head(network: Classifier, clips: ListedClips, context: Context) -> None:
    """Set the linear layer to the one that fits the frozen encoder; every rank hears its share of the clips.

    Clips that cannot be read are left out, all of them a JobError; the loader counts them, as it meets them again.
    """
    log.info("fits the linear layer to %d clips first", len(clips.keys))
    network.eval()
    heard = pairs.embed_clips(
        lambda arrays: network.encode_clips(arrays, audio.SAMPLE_RATE_HZ).features, clips, context
    )
    if heard.faults:
        told = f"{len(heard.faults)} of {len(clips.keys)} clips cannot be read, such as {dict([*heard.faults.items()][:5])}"
        if not heard.rows:
            raise JobError(f"{told}; mend them and run again")
        log.warning("%s; the linear layer is fitted without them", told)
    truth = np.array([[label in clips.tags[row] for label in network.labels] for row in heard.rows])
    weight, bias = linear.fit(heard.vectors.numpy(), truth, PENALTY, network.config.exclusive).folded()
    network.head.weight.data.copy_(weight)
    network.head.bias.data.copy_(bias)


def groups(network: Classifier, decay: float) -> tuple[Group, ...]:
    """Return the parameters by depth: the linear layer at the full learning rate, a block at `decay` times that above it."""
    stack = blocks(network.encoder)
    inside = {id(parameter): depth for depth, block in enumerate(stack, start=1) for parameter in block.parameters()}
    by_depth: dict[int, list[nn.Parameter]] = {}
    passed = 0  # blocks so far: what lies between two belongs to the one before
    for parameter in network.encoder.parameters():
        passed = inside.get(id(parameter), passed)
        by_depth.setdefault(passed, []).append(parameter)
    below = tuple(Group(held, decay ** (len(stack) + 1 - depth)) for depth, held in by_depth.items())
    return (*below, Group(list(network.head.parameters())))


def balanced(tags: Sequence[Sequence[str]]) -> list[int]:
    """Return rows of clips, those of a label rarer than the median one as many times as it is rarer, four at most."""
    counts = Counter(tag for own in tags for tag in own)
    median = sorted(counts.values())[len(counts) // 2]
    rows = []
    for row, own in enumerate(tags):
        times = min(RAREST, max(1.0, median / min(counts[tag] for tag in own)))
        draw = hashlib.sha256(str(row).encode()).digest()[0] / 256  # the rest of a division, at random but the same
        rows += [row] * int(times + draw)
    return rows


def _clips(config: FinetuneConfig, told: Labelled) -> ListedClips | ClipSubset:
    clips = ListedClips(told.training, ("{}",))
    return ClipSubset(clips, balanced(clips.tags)) if config.balance else clips


def _objective(config: FinetuneConfig, network: Classifier, context: Context) -> Backward:
    column = {label: i for i, label in enumerate(network.labels)}

    def add(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        target = torch.zeros(len(batch.tags), len(column))
        for row, own in enumerate(batch.tags):
            target[row, [column[tag] for tag in own if tag in column]] = 1.0
        inputs = (batch.waveform, batch.num_samples, target, batch.valid)
        waveform, num, target, valid = (tensor.to(context.device, non_blocking=True) for tensor in inputs)
        if config.mixup:
            waveform, num, target = augment.mixup(waveform, num, target, config.mixup, step.seed)
        logits = model(waveform, num, audio.SAMPLE_RATE_HZ)
        if network.config.exclusive:
            cost = nnf.cross_entropy(logits, target, reduction="none")
        else:
            cost = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
        value = (cost * valid).sum() / parallel.mean(valid.sum().float()).clamp(min=1e-6)
        value.backward()
        return value.detach()

    return add


def _check(config: FinetuneConfig, told: Labelled) -> None:
    """Find out what is wrong with the command before any work."""
    checkpoint.describe(config.init_audio, "--init-audio", *checkpoint.KINDS)
    if len(told.labels) < 2:
        raise InputError("--data", config.data, f"its clips have {len(told.labels)} labels; at least 2 are needed")
    data.check_several((clip.key for clip in told.training), "--data", config.data)
    if data.alike(clip.tags for clip in told.training):
        raise InputError("--data", config.data, "all clips have the same labels, so that nothing tells them apart")
    if not config.several_labels and (several := [clip.key for clip in told.training if len(clip.tags) > 1]):
        raise InputError("--data", config.data, f"clips such as {several[0]} have several labels; use --several-labels")
    if shared := {clip.key for clip in told.training} & {clip.key for clip in told.validation}:
        raise InputError("--validation-folds", config.validation_folds, f"{len(shared)} of its clips are trained on")
    if config.mixup < 0:
        raise InputError("--mixup", config.mixup, "use 0, or a number above it such as 0.3")
    if not 0 < config.layer_decay <= 1:
        raise InputError("--layer-decay", config.layer_decay, "use a number above 0, at most 1")
    if not config.clip_s > 0:
        raise InputError("--clip-s", config.clip_s, "use a number above 0")
    for part in (config.loader, config.watch):
        part.check()
    config.speed.check(config.scale.num_workers)
