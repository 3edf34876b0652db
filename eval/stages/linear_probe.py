"""A linear layer over frozen embeddings, by the official folds or splits: `python -m eval linear-probe <config>`.

The penalty is chosen on validation clips alone; then the layer is fitted to training and validation clips together.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval import results, tasks
from eval.embedding import engine, evaluation
from eval.embedding.cache import embed
from eval.embedding.evaluation import EvaluationConfig
from eval.results import scoring
from eval.tasks import splits
from eval.tasks.splits import Split
from pipeline.errors import InputError
from train.models import linear

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig(EvaluationConfig):
    """Fit a linear layer to the frozen clip embeddings of the audio encoder, and test it."""

    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Weights of the squared norm to choose from, on validation clips."""


def run(config: LinearProbeConfig) -> None:
    """Evaluate and write the numbers, where they are not there already."""
    if not config.penalties or min(config.penalties) <= 0:
        raise InputError("--penalties", config.penalties, "give one or more numbers above 0")
    task, clips = evaluation.check(config, "clap", "tagger", "classifier", read=splits.read)
    if task.labels == "none":
        raise InputError("--task", config.task, "has no labels to probe for")
    names = tasks.classes(task, config.task_dir, clips)
    name, source = f"linear-probe {task.name}", results.source(task, config.task_dir, clips)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    embeddings = embed(config, loaded, clips)
    truth, exclusive = scoring.truth(embeddings.clips, names), task.labels == "one"
    parts = splits.split(task, embeddings.clips)
    fold = _Fold(embeddings.features, truth, config.penalties, exclusive, config.device)
    found = list(engine.map_tasks(_fold, parts, fold, config.workers))
    rows = np.concatenate([part.test for part in parts])
    scores = np.concatenate([one.scores for one in found])
    per_fold = {
        part.name: scoring.value(one.scores, truth[part.test], exclusive)
        for part, one in zip(parts, found, strict=True)
    }
    tested = [embeddings.clips[row] for row in rows]
    entry = {
        **scoring.entry(scores, truth[rows], names, exclusive),
        "per_fold": {name: results.metric(value) for name, value in per_fold.items()},
        "chosen": {part.name: {"penalty": one.penalty} for part, one in zip(parts, found, strict=True)},
        "fold_rule": splits.rule(task, parts),
        **results.protocol(tested, splits.listed(task, clips), embeddings.missing, loaded, config, source),
    }
    outcomes = scoring.outcomes(tested, scores, truth[rows], np.arange(len(rows)) if exclusive else np.zeros(0, int))
    uri = results.publish(config.out, name, loaded, config.model, entry, outcomes)
    log.info("linear-probe %s: %s; wrote %s", task.name, scoring.sentence(entry), uri)


class _Fold(NamedTuple):
    """What all folds share."""

    features: np.ndarray  # (N, E)
    truth: np.ndarray  # (N, C)
    penalties: tuple[float, ...]
    exclusive: bool
    device: str


class _Fitted(NamedTuple):
    scores: np.ndarray  # (tested clips, C)
    penalty: float


def _fold(part: Split, fold: _Fold) -> _Fitted:
    """Choose the penalty on the validation clips, fit to them and the training clips, and score the tested ones."""

    def fit(rows: np.ndarray, penalty: float) -> linear.Layer:
        return linear.fit(fold.features[rows], fold.truth[rows], penalty, fold.exclusive, fold.device)

    def validated(penalty: float) -> float:
        scores = fit(part.train, penalty).scores(fold.features[part.validation])
        return scoring.value(scores, fold.truth[part.validation], fold.exclusive)

    best = max(fold.penalties, key=lambda penalty: (validated(penalty), penalty))  # of equals the strongest
    layer = fit(np.concatenate([part.train, part.validation]), best)
    log.info("fold %s: penalty %g of %s", part.name, best, ", ".join(f"{each:g}" for each in fold.penalties))
    return _Fitted(layer.scores(fold.features[part.test]), best)
