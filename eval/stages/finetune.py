"""`train finetune` on every official fold or split, and its test clips classified: `python -m eval finetune <config>`.

Nothing is chosen on what is tested: with official splits the epoch that validates best is taken, in cross-validation
the last one, after a schedule fixed beforehand.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eval import results, tasks
from eval.embedding import engine, evaluation
from eval.embedding.cache import embed
from eval.embedding.evaluation import EvaluationConfig
from eval.results import scoring
from eval.tasks import splits
from eval.tasks.splits import Split
from pipeline import storage
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip
from train import checkpoint
from train.data.clip_sets import ListedClips
from train.stages import finetune
from train.stages.finetune import FinetuneConfig, Labelled

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FinetuneTaskConfig(EvaluationConfig):
    """Fine-tune the audio encoder of a checkpoint on a task's training clips, and test it."""

    recipe: FinetuneConfig = field(default_factory=FinetuneConfig)
    """How; --recipe.data, its folds, --recipe.init-audio and --recipe.out are the task's own."""


class _Shared(NamedTuple):
    """What all folds share."""

    config: FinetuneTaskConfig
    clips: list[Clip]
    classes: list[str]
    cross_validated: bool


class _Tested(NamedTuple):
    scores: np.ndarray  # (tested clips, C) probabilities
    clips: list[Clip]
    missing: dict[str, str]
    revision: str  # of the fold's classifier


def run(config: FinetuneTaskConfig) -> None:
    """Train, evaluate and write the numbers, where they are not there already; trained folds are not trained again."""
    task, listed = evaluation.check(config, *checkpoint.KINDS, read=splits.read)
    if task.labels == "none":
        raise InputError("--task", config.task, "has no labels to learn")
    classes, exclusive = tasks.classes(task, config.task_dir, listed), task.labels == "one"
    name, source = f"finetune {task.name}", results.source(task, config.task_dir, listed)
    if results.done(config.out, name, config, source):
        return
    clips, missing = _readable(listed)
    parts = splits.split(task, clips)
    recipe = dataclasses.replace(config.recipe, several_labels=not exclusive, init_audio=config.model)
    shared = _Shared(dataclasses.replace(config, recipe=recipe), clips, classes, bool(task.folds))
    cpus = 0 if recipe.scale.num_workers else 1  # the workers of a fold take their own
    found = list(engine.map_tasks(_fold, parts, shared, config.workers, cpus))
    tested = [clip for one in found for clip in one.clips]
    truth, scores = scoring.truth(tested, classes), np.concatenate([one.scores for one in found])
    per_fold = {
        part.name: scoring.value(one.scores, scoring.truth(one.clips, classes), exclusive)
        for part, one in zip(parts, found, strict=True)
    }
    missing |= {key: why for one in found for key, why in one.missing.items()}
    loaded = evaluation.load(config.model, "--model", "cpu")
    entry = {
        **scoring.entry(scores, truth, classes, exclusive),
        "per_fold": {name: results.metric(value) for name, value in per_fold.items()},
        "chosen": {part.name: {"classifier": one.revision} for part, one in zip(parts, found, strict=True)},
        "fold_rule": splits.rule(task, parts),
        **results.protocol(tested, splits.listed(task, listed), missing, loaded, config, source),
    }
    outcomes = scoring.outcomes(tested, scores, truth, np.arange(len(tested)) if exclusive else np.zeros(0, int))
    uri = results.publish(config.out, name, loaded, config.model, entry, outcomes)
    log.info("finetune %s: %s; wrote %s", task.name, scoring.sentence(entry), uri)


def _readable(listed: list[Clip]) -> tuple[list[Clip], dict[str, str]]:
    """Decode every clip once, before any training: return those that can be read, and {key: reason} of the others.

    Raises:
        JobError: when none can be read.
    """
    log.info("checks that %d clips can be read", len(listed))
    missing = ListedClips(listed, (), keep_all=True).find_broken()
    some = dict([*missing.items()][:3])
    if len(missing) == len(listed):
        raise JobError(f"none of {len(listed)} clips could be read, such as {some}")
    if missing:
        log.warning("leaves out %d of %d clips that cannot be read, such as %s", len(missing), len(listed), some)
    return [clip for clip in listed if clip.key not in missing], missing


def _fold(part: Split, shared: _Shared) -> _Tested:
    """Train on one fold or split, and classify its test clips."""
    config = shared.config
    folder = storage.join(storage.resolve(config.out), results.file_stem(f"finetune {config.task}"))
    out = storage.join(folder, part.name.replace("/", "-"))
    training = np.concatenate([part.train, part.validation]) if shared.cross_validated else part.train
    chosen = part.validation[:0] if shared.cross_validated else part.validation
    learned = Labelled(
        labels=tuple(shared.classes),
        training=tuple(shared.clips[row] for row in training),
        validation=tuple(shared.clips[row] for row in chosen),
    )
    log.info("fold %s: %d clips to train on, %d to test", part.name, len(training), len(part.test))
    finetune.finetune(dataclasses.replace(config.recipe, out=out), learned)
    model = out if shared.cross_validated else storage.join(out, finetune.BEST)
    loaded = checkpoint.load(model)
    asked = dataclasses.replace(config, model=model, workers=0)
    embeddings = embed(asked, loaded, [shared.clips[row] for row in part.test])
    return _Tested(embeddings.outputs, embeddings.clips, embeddings.missing, loaded.revision)
