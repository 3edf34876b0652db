"""Train the tag-guided captioner on captioned clips: `python -m train captioner <config>`.

The checkpoint in `out` has the last weights, or their average over the last epochs (SWA); with --validation, the one of
the epoch that validated best lies in `out`/best.
"""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline import audio, cli, sources
from pipeline.errors import InputError
from pipeline.run_dir import NOT_IDENTITY
from train import checkpoint, parallel
from train.checkpoint import tokens
from train.data import clip_sets, undecodable
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Collate
from train.data.order import Step
from train.launch import Worker, check
from train.losses import captioning
from train.models import former_pieces, pieces
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import PAD, Subwords, Vocabulary
from train.stages import training
from train.stages.training import TrainingConfig, TrainingTask
from train.trainer import state
from train.trainer.context import Context
from train.trainer.hooks import Backward, Hooks
from train.validation import captions, splits

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainCaptionerConfig(TrainingConfig):
    """Train a captioner from CSVs of captioned clips and their audio."""

    source: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """Captioned clips, one source after the other: CSVs, MACS.yaml, folders of shards."""
    labelled: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """CSVs of clips whose tags are to be trusted and whose captions, if any, are not: --label-phrases stand in for them."""
    validation: str = ""
    """Captioned clips, never trained on, captioned with beam 3 after each epoch; the best epoch is chosen by CIDEr-D."""
    exclude_folds: tuple[str, ...] = ()
    """Never train on rows with one of these values in the fold column, such as a fold kept for evaluation."""
    label_phrases: tuple[str, ...] = ()
    """Captions for rows that have tags and no caption, with {} for the tags; empty leaves such rows out."""
    init_audio: str = field(default="", metadata=NOT_IDENTITY)
    """Checkpoint whose audio encoder this one starts from, of any kind; empty starts at random."""
    freeze_audio: bool = False
    """Keep the audio encoder's weights and BatchNorm statistics as they are, dropout on: the released recipe."""
    max_bad_fraction: float = field(default=0.05, metadata=NOT_IDENTITY)
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


def run(config: TrainCaptionerConfig) -> None:
    """Train and publish a captioner; a finished one is left alone, an interrupted one goes on."""
    _check_flags(config)
    config = training.with_absolute_paths(config, "source", "labelled", "validation", "init_audio")
    clips = _clips(config)
    _check(config, clips)
    revision = training.audio_revision(config.init_audio, config.network.audio)
    identity = {"content": clip_sets.fingerprint(clips), "init_audio_revision": revision}

    def begin(out: str) -> Worker:
        broken, broken_validation = undecodable.find(clips, out, config.max_bad_fraction), {}
        if validation := _validation_clips(config):
            name = undecodable.VALIDATION_FILE
            broken_validation = undecodable.find(validation, out, config.max_bad_fraction, name)
        whole = _clips(config, broken)
        _check_clips(config, whole)
        _vocabulary(config, out, whole)
        log.info("captioner: %d captioned clips, %d more without a caption or broken", len(whole.keys), whole.left_out)
        return partial(train, config, out, broken, broken_validation)

    training.run_once("captioner", config, identity, begin)


def train(
    config: TrainCaptionerConfig,
    out: str,
    broken: Mapping[str, str],
    broken_validation: Mapping[str, str],
    context: Context,
) -> None:
    """Train on one worker without the broken clips ({key: reason}); rank 0 publishes the checkpoint."""
    clips, validation = _clips(config, broken), _validation_clips(config, broken_validation)
    network = _network(config, out, clips)
    order = training.one_pass(clips, config.optim)
    task = TrainingTask(
        network=network,
        clips=clips,
        order=order,
        clip_s=config.network.clip_s,
        collate=_collate(config, network, context),
        backward=_objective(config, config.optim.num_epochs(order.steps_per_epoch) * order.steps_per_epoch),
        hooks=Hooks(validate=captions.measure(validation, context) if validation else None),
        lineage={
            "stage": "train captioner",
            "source": list(config.source),
            "labelled": list(config.labelled),
            "validation": config.validation,
            "exclude_folds": list(config.exclude_folds),
            "init_audio": config.init_audio,
            "num_clips": len(clips.keys),
            "broken_clips": broken,
            "broken_validation": broken_validation,
            "num_tagged": sum(map(bool, clips.tags)),
            "tag_dropout": config.tag_dropout,
        },
        trained_on=clips.keys,
        selected_on=validation.keys if validation else (),
    )
    training.train(task, config, out, context)


def _network(config: TrainCaptionerConfig, out: str, clips: ListedClips) -> TagGuidedCaptioner:
    """Make the captioner with the weights it starts from; the same on every rank."""
    vocabulary = _vocabulary(config, out, clips)
    torch.manual_seed(config.optim.seed)
    network = TagGuidedCaptioner(config.network, vocabulary, sorted({tag for names in clips.tags for tag in names}))
    if config.init_audio:
        checkpoint.start_audio(network.encoder.cnn, config.init_audio)
    if config.freeze_audio:
        network.encoder.cnn.freeze()
    return network


def _validation_clips(config: TrainCaptionerConfig, broken: Collection[str] = ()) -> ListedClips | None:
    """Return the clips to validate on, without the broken ones."""
    return captions.read(config.validation, broken, config.columns) if config.validation else None


def _collate(config: TrainCaptionerConfig, network: TagGuidedCaptioner, context: Context) -> Collate:
    """Return what makes of a batch its true tags, the tags that are given, the clips that have tags, and its words."""

    def make(batch: Batch, step: Step) -> tuple[Tensor, ...]:
        truth = network.multi_hot(batch.tags) * batch.valid[:, None]
        draws = np.random.default_rng([config.optim.seed, step.number, 1]).random(config.optim.batch_size)
        kept = torch.from_numpy(draws[context.rank :: context.world_size] >= config.tag_dropout)
        words = _encode(network.vocabulary, batch.texts).masked_fill(~batch.valid[:, None], PAD)
        return truth, truth * kept[:, None], truth.any(dim=1).nonzero()[:, 0], words

    return make


def _objective(config: TrainCaptionerConfig, steps: int) -> Backward:
    """Return what adds the gradients of a step, of batches with the inputs of `_collate`."""

    def objective(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        truth, given, tagged, words = batch.inputs
        true_prefix = _true_prefix(config, step.number, steps, words.shape[1] - 1)
        logits, tag_logits = model(batch.waveform, batch.num_samples, given, words, audio.SAMPLE_RATE_HZ, true_prefix)
        value = captioning.caption(logits, words[:, 1:], PAD, config.label_smoothing, parallel.mean)
        if tag_logits is not None:
            value = value + config.tag_loss * captioning.tagging(tag_logits, truth, tagged, parallel.mean)
        value.backward()
        return value.detach()

    return objective


def _check(config: TrainCaptionerConfig, clips: ListedClips) -> None:
    """Find out whether the clips can be trained on as the flags say, before any work."""
    if validation := _validation_clips(config):
        splits.refuse_test_split(config.validation, validation.folds)
        remedy = "give others, or --exclude-folds"
        splits.refuse_shared(validation.keys, clips.keys, "--validation", config.validation, remedy)
    if not clips.keys:
        raise InputError("--source", config.source, "no row has a caption; add captions or --label-phrases")
    if config.network.guided and not any(clips.tags):
        remedy = "put AudioSet's segments tables and class labels beside AudioCaps' tables, or train without guidance"
        raise InputError("--source", config.source, f"no clip has a tag to guide it; {remedy}: --network.no-guided")
    log.info("captioner: %d of %d clips have tags", sum(map(bool, clips.tags)), len(clips.keys))
    _check_clips(config, clips)


def _check_clips(config: TrainCaptionerConfig, clips: ListedClips) -> None:
    clip_sets.check_several(clips.keys, "--source", config.source)
    clip_sets.warn_alike(clips.texts, "--source", config.source)
    check(config.scale, config.optim, len(clips.keys))


def _check_flags(config: TrainCaptionerConfig) -> None:
    """Find out what is wrong with the flags before anything is read."""
    if not config.source:
        raise InputError("--source", config.source, "give one or more CSVs that list captioned clips")
    if config.labelled and not config.label_phrases:
        remedy = "give phrases with {} for the tags of --labelled clips"
        raise InputError("--label-phrases", config.label_phrases, remedy)
    for phrase in config.label_phrases:
        cli.check_template("--label-phrases", phrase)
    if config.freeze_audio and not config.init_audio:
        raise InputError("--init-audio", "", "a frozen audio encoder needs weights to start from")
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
    config.check_common()


def _clips(config: TrainCaptionerConfig, broken: Collection[str] = ()) -> ListedClips:
    names = config.columns
    captioned = [clip for source in config.source for clip in sources.read_clips(source, column_names=names)]
    labelled = [clip for source in config.labelled for clip in sources.read_clips(source, (), "--labelled", names)]
    listed = captioned + [dataclasses.replace(clip, captions=()) for clip in labelled]
    folds = {clip.fold for clip in listed}
    for fold in config.exclude_folds:
        if fold not in folds:
            raise InputError("--exclude-folds", fold, f"no clip is in this fold; there are {sorted(folds)}")
    return ListedClips([c for c in listed if c.fold not in config.exclude_folds], config.label_phrases, broken)


def _vocabulary(config: TrainCaptionerConfig, out: str, clips: ListedClips) -> Vocabulary:
    """Return the vocabulary of the run; the command publishes it, and the workers read it."""

    def build() -> Vocabulary:
        texts = (text for texts in clips.texts for text in texts)
        if not config.network.subwords:
            return Vocabulary.build(texts, config.min_word_count)
        train_pieces = former_pieces.byte_pairs if state.exists(out) else pieces.train_pieces
        return Subwords.build_pieces(texts, config.num_subwords, train_pieces)

    return tokens.open_vocabulary(out, config.network.subwords, build)


def _true_prefix(config: TrainCaptionerConfig, step: int, steps: int, length: int) -> Tensor | None:
    """Draw at which words the true prefix is given: one draw a word for the whole batch, the same on every rank."""
    if config.final_teacher_forcing == 1:
        return None
    share = 1 - (1 - config.final_teacher_forcing) * (step + 1) / steps
    return torch.from_numpy(np.random.default_rng([config.optim.seed, step]).random(length) < share)


def _encode(vocabulary: Vocabulary, texts: list[str]) -> Tensor:
    rows = [torch.tensor(vocabulary.encode(text)) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)
