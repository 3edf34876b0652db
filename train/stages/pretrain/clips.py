"""The clips of a pre-training run: what is trained on, what is held out of it, and whether they are enough."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline import sources
from pipeline.errors import InputError
from train.data import clip_sets, datasets, mixing, timed
from train.data.clip_sets import ClipSubset, ListedClips, Mixture
from train.data.loader import Clips
from train.data.order import Order
from train.launch import check
from train.metrics import foils
from train.stages.pretrain.config import PretrainConfig
from train.validation import splits


class PretrainClips(NamedTuple):
    """The clips of a run."""

    datasets: list[Clips]  # to train on, one for each --data, or for each of its clusters with --mixture
    validation: Clips | None
    weights: tuple[float, ...]  # passes over each in an epoch; 1 each when left out


def read(config: PretrainConfig, clip_files: Sequence[str] = ()) -> PretrainClips:
    """Open the datasets and the validation clips; `clip_files` as `names` of `datasets.open_data`."""
    opened: list[Clips] = [
        *datasets.open_data(
            config.data, config, config.label_phrases, clip_files, config.columns, timed=config.frame_weight > 0
        )
    ]
    validation: Clips | None = None
    if config.hold_out:
        opened, validation = _hold_out(config, opened)
    elif config.validation:
        validation = _validation(config, opened)
    parts, weights = mixing.split(opened, config.mixture) if config.mixture else (opened, tuple(config.weights))
    return PretrainClips(parts, validation, weights)


def _hold_out(config: PretrainConfig, opened: list[Clips]) -> tuple[list[Clips], Clips]:
    whole = Mixture(opened)
    held_out = clip_sets.hold_out(whole, config.hold_out, config.optim.seed)
    rows = {key: row for row, key in enumerate(whole.keys) if key in held_out}
    kept = [ClipSubset(clips, np.flatnonzero([key not in held_out for key in clips.keys])) for clips in opened]
    if not all(len(clips.keys) for clips in kept):
        raise InputError("--hold-out", config.hold_out, "leaves nothing of one of --data to train on; use fewer")
    return [*kept], ClipSubset(whole, sorted(rows.values()))


def _validation(config: PretrainConfig, opened: list[Clips]) -> Clips:
    listed = sources.read_clips(config.validation, flag="--validation", column_names=config.columns)
    splits.refuse_test_split(config.validation, [clip.fold for clip in listed])
    validation = ListedClips(listed, (), keep_all=True)
    trained = (key for clips in opened for key in clips.keys)
    splits.refuse_shared(validation.keys, trained, "--validation", config.validation)
    if not any(validation.texts) and not any(validation.tags):
        raise InputError("--validation", config.validation, "none of its clips has a caption or a tag")
    return validation


def order(config: PretrainConfig, clips: PretrainClips) -> Order:
    """Return the order of the steps: passes over the datasets by their weights."""
    sizes = tuple(len(part.keys) for part in clips.datasets)
    return Order(sizes=sizes, batch_size=config.optim.batch_size, seed=config.optim.seed, weights=clips.weights)


def check_enough(config: PretrainConfig, clips: PretrainClips) -> None:
    """Raise InputError unless there are enough clips to contrast, and to validate on."""
    clip_sets.check_several((key for part in clips.datasets for key in part.keys), "--data", config.data)
    clip_sets.warn_alike((texts for part in clips.datasets for texts in part.texts), "--data", config.data)
    if config.optim.batch_size == 1:
        raise InputError("--optim.batch-size", 1, "a clip is compared with the others of its batch; use 2 or more")
    check(config.scale, config.optim, sum(order(config, clips).draws))
    share = config.optim.batch_size // max(1, config.scale.num_workers)
    if config.grad_cache_chunks > share:
        raise InputError("--grad-cache-chunks", config.grad_cache_chunks, f"a worker has {share} clips of a batch")
    _check_hard_negatives(config, clips)
    if config.frame_weight and not any(map(timed.has_phrases, clips.datasets)):
        remedy = "no clip of --data has phrases with times: write them with `pipeline caption --timed`, or leave it out"
        raise InputError("--frame-weight", config.frame_weight, remedy)
    validation = clips.validation
    if validation is not None and any(validation.texts) and len(validation.keys) < 2:
        flag, value = ("--hold-out", config.hold_out) if config.hold_out else ("--validation", config.validation)
        raise InputError(flag, value, "every caption finds the only clip; validate on 2 or more")


def _check_hard_negatives(config: PretrainConfig, clips: PretrainClips) -> None:
    """Raise InputError where the clips give nothing to make hard negatives of."""
    texts = (text for part in clips.datasets for captions in part.texts for text in captions)
    lacking = {
        "order": lambda: not any(map(foils.swap_order, texts)),
        "absence": lambda: not any(tags for part in clips.datasets for tags in part.tags),
    }
    reasons = {"order": "no caption of --data names an order of events", "absence": "no clip of --data has tags"}
    for kind in config.hard_negatives:
        if lacking[kind]():
            raise InputError("--hard-negatives", kind, f"{reasons[kind]}; leave it out, or give other --data")
