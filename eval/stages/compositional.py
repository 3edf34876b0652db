"""Right captions against wrong ones of the same form: `python -m eval compositional <config>`.

    order       the caption of a clip, and the same with two of its events swapped
    presence    "rain and bell", and "rain and siren": the second sound is present, and absent
    negation    "rain without siren", and "rain without bell": the second sound is absent, and present

A clip counts the share of its pairs in which the right text is closer; chance is 50 %. A model that prefers texts whatever
the audio can be above it. Two numbers show that. `shuffled` is the same share with the audio of other clips: it must be at
50 %. `margin` is how often the right text leads by more with its own clip than with another one: without regard to the
audio this is 50 %, too. Source: CompA-order (Ghosh et al. 2024, arXiv 2310.08753), whose pairs are of two clips each.
"""

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval import metrics, results, tasks
from eval.embedding import evaluation
from eval.embedding.cache import embed
from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import embed_text
from eval.results.records import MetricRecord
from eval.tasks import Task
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.metrics import foils, ranking
from train.metrics.foils import Statement

log = logging.getLogger(__name__)
MAX_ABSENT = 20  # labels that a clip is compared with
MAX_OTHERS = 50  # clips that each clip is exchanged for


@dataclass(frozen=True, kw_only=True)
class CompositionalConfig(EvaluationConfig):
    """Compare right captions with wrong ones, on the clips whose captions name an order of events."""


class Pairs(NamedTuple):
    """Right and wrong texts of one kind."""

    clip: np.ndarray  # (P,) row of the clip of each
    texts: list[Statement]  # P


def run(config: CompositionalConfig) -> None:
    """Evaluate and write the numbers, where they are not there already."""
    task, listed = evaluation.check(config, "clap")
    labels = tasks.classes(task, config.task_dir, listed) if task.labels != "none" else []
    clips = sorted(filter(_has_order, listed), key=lambda clip: clip.key)
    if labels:
        clips = [clip for clip in clips if len(clip.tags) > 1 and _absent(clip, labels)]
    if len(clips) < 2:
        wanted = "two tags and a caption that" if labels else "a caption that"
        remedy = f"fewer than 2 of its clips have {wanted} names an order of events; choose another task"
        raise InputError("--task-dir", config.task_dir, remedy)
    name, source = f"compositional {task.name}", results.source(task, config.task_dir, listed)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    embedded = embed(config, loaded, clips)
    found = {
        kind: measure(embedded.outputs, pairs, lambda texts: embed_text(loaded.model, texts))
        for kind, pairs in make_pairs(embedded.clips, labels, task).items()
    }
    entry = {
        **{kind: each.metrics for kind, each in found.items()},
        "fold_rule": f"{task.fold_rule}, those that name an order of events",
        **results.protocol(embedded.clips, len(clips), embedded.missing, loaded, config, source),
    }
    outcomes = {"keys": results.keys(embedded.clips), **{kind: each.share for kind, each in found.items()}}
    uri = results.publish(config.out, name, loaded, config.model, entry, outcomes)
    numbers = ", ".join(f"{kind} {100 * each.metrics['accuracy']['value']:.1f} %" for kind, each in found.items())
    log.info("compositional %s: %s (chance 50.0, n %d); wrote %s", task.name, numbers, entry["n"], uri)


def make_pairs(clips: Sequence[Clip], labels: Sequence[str], task: Task) -> dict[str, Pairs]:
    """Return the pairs of each kind; without labels there is only `order`."""
    makers: dict[str, Callable[[Clip], Iterator[Statement]]] = {"order": _orders}
    if labels:
        makers["presence"] = lambda clip: _statements(clip, labels, task, foils.presence)
        makers["negation"] = lambda clip: _statements(clip, labels, task, foils.negation)
    found = {}
    for kind, make in makers.items():
        made = [(row, pair) for row, clip in enumerate(clips) for pair in make(clip)]
        found[kind] = Pairs(np.array([row for row, _ in made]), [pair for _, pair in made])
    return found


def _has_order(clip: Clip) -> bool:
    return any(map(foils.swap_order, clip.captions))


def _orders(clip: Clip) -> Iterator[Statement]:
    for caption in clip.captions:
        if wrong := foils.swap_order(caption):
            yield Statement(caption, wrong)


def _statements(
    clip: Clip, labels: Sequence[str], task: Task, form: Callable[[str, str, str], Statement]
) -> Iterator[Statement]:
    """Yield the statements on each tag, beside the one before it, with each absent label."""
    for i, tag in enumerate(clip.tags):
        for label in _absent(clip, labels):
            yield form(task.label_text(tag), task.label_text(label), task.label_text(clip.tags[i - 1]))


def _absent(clip: Clip, labels: Sequence[str]) -> list[str]:
    """Return labels that are absent from a clip: all, or some that depend on its key alone."""
    absent = [label for label in labels if foils.is_absent(label, clip.tags)]
    rng = np.random.default_rng(zlib.crc32(clip.key.encode()))
    return [absent[i] for i in sorted(rng.permutation(len(absent))[:MAX_ABSENT])]


class Measured(NamedTuple):
    """The numbers of one kind."""

    metrics: Mapping[str, MetricRecord]  # accuracy, shuffled, margin
    share: np.ndarray  # (N,) of a clip's pairs in which the right text is closer


def measure(audio: np.ndarray, pairs: Pairs, embed_texts: Callable[[list[str]], np.ndarray]) -> Measured:
    """Measure one kind of pairs; equal similarities count a half.

    Args:
        audio: (N, D) unit vectors of the clips, each of which has a pair.
        pairs: texts of the clips.
        embed_texts: texts -> their unit vectors.
    """
    vectors = embed_texts([text for pair in pairs.texts for text in pair]).astype(np.float64)
    gap = vectors[::2] - vectors[1::2]  # (P, D)
    lead = _lead(audio, pairs.clip, gap)
    others = np.random.default_rng(0).permutation(np.arange(1, len(audio)))[:MAX_OTHERS]
    elsewhere = [_lead(audio, (pairs.clip + shift) % len(audio), gap) for shift in others]
    shares = {
        "accuracy": _wins(lead),
        "shuffled": np.mean([_wins(each) for each in elsewhere], axis=0),
        "margin": np.mean([_wins(lead - each) for each in elsewhere], axis=0),
    }
    count = np.bincount(pairs.clip, minlength=len(audio))
    by_clip = {name: np.bincount(pairs.clip, weights=share) / count for name, share in shares.items()}
    found = {}
    for name, values in by_clip.items():
        interval = metrics.bootstrap(lambda rows, values=values: float(values[rows].mean()), len(values))  # type: ignore[misc]
        found[name] = results.metric(float(values.mean()), interval, chance=0.5)
    return Measured(found, by_clip["accuracy"])


def _lead(audio: np.ndarray, rows: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return by how much clips (P,) are closer to the right texts than to the wrong ones, from the texts' gaps (P, D)."""
    return np.einsum("pd,pd->p", audio[rows].astype(np.float64), gap)


def _wins(lead: np.ndarray) -> np.ndarray:
    """Return 1 for a lead (P,), 0 for a loss and 0.5 for a tie."""
    return np.where(np.abs(lead) <= ranking.TIE, 0.5, lead > 0)
