"""The two towers in training: what they start from, what a step adds to their gradients, at what rates they learn."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from pipeline import audio, storage
from pipeline.errors import InputError
from train import checkpoint, parallel
from train.checkpoint import tokens
from train.data import augment, hard_negatives, timed
from train.data.augment import Mixture
from train.data.loader import Batch, Clips, Collate
from train.data.order import Order, Step
from train.data.timed import StepPhrases
from train.losses import contrastive, frames
from train.losses.contrastive import HardNegatives, Pairs
from train.losses.frames import Events
from train.losses.grad_cache import backward
from train.models import former_pieces, pieces, text
from train.models.clap import Clap, Towers, TwoTowers
from train.models.configs import HfTowersConfig, TextConfig
from train.stages.pretrain.config import PretrainConfig
from train.trainer import performance, state
from train.trainer.hooks import Backward
from train.trainer.optim import Group

log = logging.getLogger(__name__)
Phrases = Callable[[Batch, Step], StepPhrases]
TIMED = 2 + len(StepPhrases._fields[1:])  # inputs of a step that the loss of frames takes


def init_revision(config: PretrainConfig) -> str | None:
    """Return the revision of the checkpoint that --init names, or None.

    Raises:
        InputError: when it is another network, or without --init when the named text encoder is not there.
    """
    if not config.init:
        _check_text(config.network.text)
        return None
    checkpoint_info = checkpoint.describe(config.init, "--init", "clap")
    if isinstance(checkpoint_info.network, HfTowersConfig):
        if config.frame_weight:
            raise InputError(
                "--frame-weight", config.frame_weight, "a CLAP of transformers learns no frames; leave it out"
            )
        if config.loss == "sigmoid" and checkpoint_info.network.transformers == "clap":
            raise InputError("--loss", config.loss, "a ClapModel has no bias to learn; use global or local")
        log.info("pretrain: the network is that of --init; --network does not apply")
        return checkpoint_info.revision
    held, wanted = (storage.plain(dataclasses.asdict(each)) for each in (checkpoint_info.network, config.network))
    del wanted["padding"], wanted["frames"]  # what they decide is the run's own
    if differing := [f"{name} is {held[name]!r}" for name in wanted if held[name] != wanted[name]]:
        remedy = "use the config that matches"
        raise InputError("--init", config.init, f"is another network ({'; '.join(differing)}); {remedy}")
    return checkpoint_info.revision


def _check_text(config: TextConfig) -> None:
    """Find out before any engine starts that the named text encoder is there, weights included."""
    if config.name:
        try:
            text.build(config, ())
        except ValueError as error:
            remedy = "give a name on the Hugging Face hub, a local folder, or '' to build a small one from the captions"
            raise InputError("--network.text.name", config.name, f"{error}; {remedy}") from None


def tokenizer(config: PretrainConfig, out: str, clips: Clips) -> Tokenizer | None:
    """Return the tokenizer of the run, which the command publishes and the workers read; None where one is pretrained."""
    if config.init or config.network.text.name:
        return None

    def build() -> Tokenizer:
        captions = (caption for captions in clips.texts for caption in captions)
        words = hard_negatives.statement_words(labels(config, clips))
        texts = itertools.chain(captions, words, timed.phrases(clips) if config.frame_weight else ())
        train_pieces = former_pieces.frequent_words if state.exists(out) else pieces.train_pieces
        return text.build_tokenizer(texts, config.network.text, train_pieces)

    return tokens.open_tokenizer(out, build)


def build(config: PretrainConfig, out: str, clips: Clips) -> TwoTowers:
    """Make the model with the weights it starts from; the same on every rank."""
    torch.manual_seed(config.optim.seed)
    if config.init:
        network: TwoTowers = checkpoint.load(config.init).model
        if isinstance(network, Clap):
            network.config = dataclasses.replace(network.config, padding=config.network.padding)
    else:
        network = Clap(config.network, text.build(config.network.text, tokenizer=tokenizer(config, out, clips)))
    if isinstance(network, Clap):
        _prepare_frames(network, config)
    if network.logit_bias is not None:  # DDP would wait for a gradient that no other loss gives
        network.logit_bias.requires_grad_(config.loss == "sigmoid")
    if config.init_audio:
        checkpoint.start_audio(network.audio_encoder, config.init_audio)
    if network.logit_bias is not None:  # DDP would wait for the gradient of one that is left out
        network.logit_bias.requires_grad_(config.loss == "sigmoid")
    if config.freeze_audio:
        network.audio_encoder.freeze()
    if config.freeze_text:
        network.text_encoder.freeze()
    if config.augment.spec_augment:
        augment.add_spec_augment(network, "--augment.spec-augment")
    return network


def _prepare_frames(network: Clap, config: PretrainConfig) -> None:
    """Let scale and bias of frames learn where their loss does; DDP would wait for gradients of those that are left."""
    if config.frame_weight and network.frame_scale is None:
        network.learn_frames()
    for parameter in (network.frame_scale, network.frame_bias):
        if parameter is not None:
            parameter.requires_grad_(config.frame_weight > 0)


def groups(network: TwoTowers, config: PretrainConfig) -> tuple[Group, ...]:
    """Return the towers with their learning rates, and the rest."""
    towers = (network.audio_encoder, network.text_encoder)
    own = {id(parameter) for tower in towers for parameter in tower.parameters()}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in own]
    scales = (config.audio_lr_scale, config.text_lr_scale)
    return (*(Group(list(tower.parameters()), s) for tower, s in zip(towers, scales, strict=True)), Group(rest))


def flops_per_pair(network: TwoTowers, config: PretrainConfig) -> float:
    """Return the operations of training on one pair, where there is a GPU to compare with; 0 elsewhere."""
    if not torch.cuda.is_available():
        return 0.0
    size = round(network.config.clip_s * audio.SAMPLE_RATE_HZ)
    inputs = (torch.zeros(1, size), torch.tensor([size]), *network.text_encoder.tokenize(["a dog barks"]))
    return performance.flops(network, inputs, sample_rate_hz=audio.SAMPLE_RATE_HZ)


def labels(config: PretrainConfig, clips: Clips) -> list[str]:
    """Return the labels of all clips, sorted, where hard negatives are made of labels; else none."""
    return sorted({tag for tags in clips.tags for tag in tags}) if "absence" in config.hard_negatives else []


def phrases(config: PretrainConfig, clips: Clips, order: Order) -> Phrases | None:
    """Return what gives the phrases with times of a step; None where no loss takes them."""
    return partial(timed.of_step, clips, order) if config.frame_weight else None


def collate(
    config: PretrainConfig, network: TwoTowers, absent_from: Sequence[str] = (), phrases: Phrases | None = None
) -> Collate:
    """Return what makes the inputs of a step beside the clips.

    These are tokens, mask, numbers of clips and captions; then the mixture, or for which clips there is a hard negative,
    whose tokens lie beside those of the caption; last, with a loss of frames, tokens and mask of the step's phrases and
    the tensors of `StepPhrases`. `absent_from` are the `labels` of the clips; `phrases` as the function of this name gives.
    """

    def with_times(batch: Batch, step: Step) -> tuple[Tensor, ...]:
        if phrases is None:
            return ()
        found = phrases(batch, step)
        return (*network.text_encoder.tokenize(found.texts), *found[1:])

    def make(batch: Batch, step: Step) -> tuple[Tensor, ...]:
        texts, share = batch.texts, config.augment.mix_fraction
        mixture = augment.draw_mixture(len(texts), share, step.seed) if share else None
        if mixture:
            texts = augment.mix_texts(texts, mixture.chosen)
        if not config.hard_negatives:
            tokens = network.text_encoder.tokenize(texts)
            return (*tokens, _numbers(batch.keys), _numbers(texts), *(mixture or ()), *with_times(batch, step))
        drawn = hard_negatives.draw(texts, batch.tags, config.hard_negatives, absent_from, step.seed)
        tokens = network.text_encoder.tokenize([text for pair in zip(*drawn[:2], strict=True) for text in pair])
        beside = (each.unflatten(0, (len(texts), 2)) for each in tokens)  # (B, 2, L)
        return (*beside, _numbers(batch.keys), _numbers(drawn.texts), drawn.made, *with_times(batch, step))

    return make


def objective(config: PretrainConfig) -> Backward:
    """Return what adds the gradients of a step, of batches with the inputs of `collate`; see `hooks.Backward`."""
    ranks = parallel.Ranks(config.optim.batch_size)

    def add(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        waveform, num_samples = batch.waveform, batch.num_samples
        tokens, mask, clip, caption, *more = batch.inputs
        more, with_times = (more[:-TIMED], more[-TIMED:]) if config.frame_weight else (more, [])
        if more and not config.hard_negatives:
            waveform, num_samples = augment.mix(waveform, num_samples, Mixture(*more))

        def loss(towers: Towers) -> Tensor:
            text, negatives = towers.text, None
            if config.hard_negatives:
                text, negatives = text[:, 0], HardNegatives(text[:, 1], *more)
            pairs = Pairs(towers.audio, text, clip, caption, batch.valid)
            value = contrastive.loss(
                config.loss, pairs, towers.scale, towers.bias, ranks, config.mask_duplicates, negatives
            )
            if towers.frames is None:
                return value
            events = Events(*with_times[2:])
            return value + config.frame_weight * frames.loss(towers.frames, events, batch.valid, ranks)

        inputs = (waveform, num_samples, tokens, mask)
        chunks = list(zip(*(tensor.tensor_split(config.grad_cache_chunks) for tensor in inputs), strict=True))
        given = {"phrases": tuple(with_times[:2])} if with_times else {}
        return backward(model, chunks, loss, step.seed, sample_rate_hz=audio.SAMPLE_RATE_HZ, **given)

    return add


def _numbers(names: Sequence[str]) -> Tensor:
    """Return a number for each name, equal where they are; int64."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])
