"""Fine-tuning of an audio encoder on labelled clips: `python -m train finetune <config>`.

Fine-tuning for retrieval is `train pretrain` with --init, for captions `train captioner` with --init-audio.
"""

import dataclasses
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pipeline import audio, sources, storage
from pipeline.errors import InputError, JobError
from pipeline.run_dir import NOT_IDENTITY
from pipeline.sources.clip import Clip
from train import checkpoint, parallel
from train.checkpoint import NetworkConfig
from train.data import augment, clip_sets
from train.data.clip_sets import ClipSubset, ListedClips
from train.data.loader import Batch, Collate
from train.data.order import Step
from train.launch import Worker, check
from train.models import linear
from train.models.blocks import blocks
from train.models.classifier import Classifier
from train.models.configs import ClassifierConfig, HfTowersConfig
from train.models.encoders.configs import HtsatConfig, MobileNetConfig, PeAudioConfig
from train.stages import training
from train.stages.training import TrainingConfig, TrainingTask
from train.trainer.context import Context
from train.trainer.hooks import Backward, Hooks
from train.trainer.optim import Group
from train.validation import pairs, splits

log = logging.getLogger(__name__)
BEST = training.BEST
PENALTY = 1e-2  # of the squared weights of the linear layer that --probe-first fits
MAX_REPEATS = 4.0  # times that balancing takes a clip in an epoch


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tune an audio encoder and a linear layer over it on labelled clips."""

    data: str = field(default="", metadata=NOT_IDENTITY)
    """Listing of labelled clips."""
    folds: tuple[str, ...] = ()
    """Train on these folds of it; empty takes all that are not validated on."""
    validation_folds: tuple[str, ...] = ()
    """Measure on these folds of it each epoch; the best model goes to <out>/best."""
    init_audio: str = field(default="", metadata=NOT_IDENTITY)
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


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What is learned, and on which clips."""

    labels: tuple[str, ...]
    training: tuple[Clip, ...]
    validation: tuple[Clip, ...] = ()


def run(config: FinetuneConfig) -> None:
    """Fine-tune and publish a classifier; a finished one is left alone, an interrupted one goes on."""
    listed = sources.read_clips(config.data, flag="--data", column_names=config.columns)
    if config.validation_folds:
        splits.refuse_test_split(storage.resolve(config.data), config.validation_folds, "--validation-folds")
    validation = [c for c in listed if c.fold in config.validation_folds]
    rest = [c for c in listed if c.fold not in config.validation_folds and (not config.folds or c.fold in config.folds)]
    if config.validation_folds and not validation:
        raise InputError("--validation-folds", config.validation_folds, "no clip of --data is in these folds")
    labels = sources.tag_vocabulary(rest)
    finetune(config, Labelled(labels=tuple(labels), training=tuple(rest), validation=tuple(validation)))


def finetune(config: FinetuneConfig, labelled: Labelled) -> None:
    """Fine-tune on given clips; see `run`. Raises InputError for what cannot be learned of them."""
    _check(config, labelled)
    config = training.with_absolute_paths(config, "init_audio")
    check(config.scale, config.optim, len(_clips(config, labelled).keys))
    revision = checkpoint.describe(config.init_audio, "--init-audio", *checkpoint.KINDS).revision
    content = clip_sets.fingerprint(ListedClips([*labelled.training, *labelled.validation], ("{}",), keep_all=True))
    identity = {"content": content, "init_audio_revision": revision, "labels": list(labelled.labels)}

    def begin(out: str) -> Worker:
        counts = (len(labelled.labels), len(labelled.training), len(labelled.validation))
        log.info("finetune: %d labels, %d clips, %d to validate on", *counts)
        return partial(train, config, out, labelled)

    training.run_once("finetune", config, identity, begin)


def train(config: FinetuneConfig, out: str, labelled: Labelled, context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    clips, validation = _clips(config, labelled), ListedClips(labelled.validation, ("{}",))
    network = build(config, labelled.labels)
    if config.probe_first:
        start_head(network.to(context.device), ListedClips(labelled.training, ("{}",)), context)
    trained = sorted({clip.key for clip in labelled.training})
    task = TrainingTask(
        network=network,
        clips=clips,
        order=training.one_pass(clips, config.optim),
        clip_s=config.clip_s,
        collate=_collate(config, network.labels),
        backward=_objective(network.config.exclusive),
        hooks=Hooks(
            groups=lambda: groups(network, config.layer_decay),
            validate=pairs.measure_labels(validation, context) if labelled.validation else None,
        ),
        lineage={
            "stage": "train finetune",
            "data": config.data,
            "init_audio": config.init_audio,
            "num_clips": len(trained),
            "labels": len(labelled.labels),
        },
        trained_on=trained,
        selected_on=[clip.key for clip in labelled.validation],
    )
    training.train(task, config, out, context)


def build(config: FinetuneConfig, labels: Sequence[str]) -> Classifier:
    """Return the classifier to be trained: the encoder of the checkpoint, a fresh linear layer."""
    torch.manual_seed(config.optim.seed)
    encoder = checkpoint.encoder_config(config.init_audio)
    if isinstance(encoder, MobileNetConfig):
        encoder = dataclasses.replace(encoder, num_classes=0)
    exclusive = not config.several_labels
    network = Classifier(ClassifierConfig(audio=encoder, exclusive=exclusive, clip_s=config.clip_s), labels)
    checkpoint.start_audio(network.encoder, config.init_audio)
    network.encoder.statistics_kept = config.keep_statistics
    if config.spec_augment:
        augment.add_spec_augment(network, "--spec-augment")
    return network


def start_head(network: Classifier, clips: ListedClips, context: Context) -> None:
    """Set the linear layer to the one that fits the frozen encoder; every rank encodes its share of the clips.

    Clips that cannot be read are left out, and the loader counts them later. Where that is all of them, a JobError.
    """
    log.info("fits the linear layer to %d clips first", len(clips.keys))
    network.eval()
    embedded = pairs.embed_clips(
        lambda arrays: network.encode_clips(arrays, audio.SAMPLE_RATE_HZ).features, clips, context
    )
    if embedded.faults:
        examples = dict([*embedded.faults.items()][:5])
        message = f"{len(embedded.faults)} of {len(clips.keys)} clips cannot be read, such as {examples}"
        if not embedded.rows:
            raise JobError(f"{message}; mend them and run again")
        log.warning("%s; the linear layer is fitted without them", message)
    truth = np.array([[label in clips.tags[row] for label in network.labels] for row in embedded.rows])
    weight, bias = linear.fit(embedded.vectors.numpy(), truth, PENALTY, network.config.exclusive).folded()
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
    below = tuple(Group(parameters, decay ** (len(stack) + 1 - d)) for d, parameters in by_depth.items())
    return (*below, Group(list(network.head.parameters())))


def balanced(tags: Sequence[Sequence[str]]) -> list[int]:
    """Return rows of clips, those of a label rarer than the median one as many times as it is rarer, four at most."""
    counts = Counter(tag for own in tags for tag in own)
    median = sorted(counts.values())[len(counts) // 2]
    rows = []
    for row, own in enumerate(tags):
        times = min(MAX_REPEATS, max(1.0, median / min(counts[tag] for tag in own)))
        draw = hashlib.sha256(str(row).encode()).digest()[0] / 256  # the rest of a division, at random but the same
        rows += [row] * int(times + draw)
    return rows


def _clips(config: FinetuneConfig, labelled: Labelled) -> ListedClips | ClipSubset:
    clips = ListedClips(labelled.training, ("{}",))
    return ClipSubset(clips, balanced(clips.tags)) if config.balance else clips


def _collate(config: FinetuneConfig, labels: Sequence[str]) -> Collate:
    """Return what makes of a batch its labels (B, C), and with --mixup the part of each clip in its mixture."""
    column = {label: i for i, label in enumerate(labels)}

    def make(batch: Batch, step: Step) -> tuple[Tensor, ...]:
        target = torch.zeros(len(batch.tags), len(column))
        for row, own in enumerate(batch.tags):
            target[row, [column[tag] for tag in own if tag in column]] = 1.0
        return (target, augment.draw_mixup(len(target), config.mixup, step.seed)) if config.mixup else (target,)

    return make


def _objective(exclusive: bool) -> Backward:
    """Return what adds the gradients of a step, of batches with the inputs of `_collate`."""

    def add(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        waveform, num_samples = batch.waveform, batch.num_samples
        target, *share = batch.inputs
        if share:
            waveform, num_samples, target = augment.mixup(waveform, num_samples, target, *share)
        logits = model(waveform, num_samples, audio.SAMPLE_RATE_HZ)
        if exclusive:
            cost = nnf.cross_entropy(logits, target, reduction="none")
        else:
            cost = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
        value = (cost * batch.valid).sum() / parallel.mean(batch.valid.sum().float()).clamp(min=1e-6)
        value.backward()
        return value.detach()

    return add


def _longest_clip_s(network: NetworkConfig) -> float:
    """Return how many seconds of a clip the audio encoder of a checkpoint takes; no bound for encoders of ours."""
    if isinstance(network, HfTowersConfig):
        return network.clip_s
    return network.audio.clip_s if isinstance(network.audio, HtsatConfig | PeAudioConfig) else math.inf


def _check(config: FinetuneConfig, labelled: Labelled) -> None:
    """Find out what is wrong with the command before any work."""
    network = checkpoint.describe(config.init_audio, "--init-audio", *checkpoint.KINDS).network
    if len(labelled.labels) < 2:
        raise InputError("--data", config.data, f"its clips have {len(labelled.labels)} labels; at least 2 are needed")
    trained = [clip.key for clip in labelled.training]
    clip_sets.check_several(trained, "--data", config.data)
    if clip_sets.alike(clip.tags for clip in labelled.training):
        raise InputError("--data", config.data, "all clips have the same labels: there is nothing to learn")
    if not config.several_labels and (several := [clip.key for clip in labelled.training if len(clip.tags) > 1]):
        raise InputError("--data", config.data, f"clips such as {several[0]} have several labels; use --several-labels")
    validated = (clip.key for clip in labelled.validation)
    splits.refuse_shared(validated, trained, "--validation-folds", config.validation_folds)
    unknown = (clip for clip in labelled.validation if not {*clip.tags} & {*labelled.labels})
    if not config.several_labels and (clip := next(unknown, None)):
        remedy = "no clip to train on has its label; name other folds"
        raise InputError("--validation-folds", config.validation_folds, f"hold {clip.key}, {clip.tags}: {remedy}")
    if config.mixup < 0:
        raise InputError("--mixup", config.mixup, "use 0, or a number above it such as 0.3")
    if not 0 < config.layer_decay <= 1:
        raise InputError("--layer-decay", config.layer_decay, "use a number above 0, at most 1")
    if not config.clip_s > 0:
        raise InputError("--clip-s", config.clip_s, "use a number above 0")
    longest = _longest_clip_s(network)
    if config.clip_s > longest:
        raise InputError("--clip-s", config.clip_s, f"the encoder takes {longest:g} s of a clip; use this or less")
    config.check_common()
