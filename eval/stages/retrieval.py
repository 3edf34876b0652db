"""Audio-text retrieval in both directions: `python -m eval retrieval <config>`.

Every caption is a query for its clip; a clip's query counts the best of its captions. Whole clips. Items that are equally
close are in random order: every number is the expected one, and a model without any signal gets what chance gives.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval import metrics, results
from eval.embedding import evaluation
from eval.embedding.cache import embed
from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import embed_text
from eval.results.records import MetricRecord
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.metrics import ranking

log = logging.getLogger(__name__)
RECALL_AT = (1, 5, 10, 50)
COMPARED_AT = (1, 10)  # those whose outcome by clip is kept


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluationConfig):
    """Retrieve clips by their captions and captions by their clips."""


def run(config: RetrievalConfig) -> None:
    """Evaluate and write the numbers, where they are not there already."""
    task, listed = evaluation.check(config, "clap")
    clips = sorted(
        (clip for clip in listed if clip.captions), key=lambda clip: clip.key
    )  # no number depends on the order
    if not clips:
        raise InputError("--task-dir", config.task_dir, "none of its clips has a caption")
    name, source = f"retrieval {task.name}", results.source(task, config.task_dir, listed)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    embedded = embed(config, loaded, clips)
    texts = [caption for clip in embedded.clips for caption in clip.captions]
    vectors = (embedded.outputs, embed_text(loaded.model, texts))
    audio, text = (each.astype(np.float64) for each in vectors)  # as train/metrics/ranking.py has it
    found = measure(audio @ text.T, clips_of_captions(embedded.clips))
    entry = {
        **found.metrics,
        "num_captions": len(texts),
        "fold_rule": task.fold_rule,
        **results.protocol(embedded.clips, len(clips), embedded.missing, loaded, config, source),
    }
    outcomes = {"keys": results.keys(embedded.clips), **found.outcomes}
    uri = results.publish(config.out, name, loaded, config.model, entry, outcomes)
    t2a, a2t = (entry[way]["R@10"] for way in ("text_to_audio", "audio_to_text"))
    log.info(
        "retrieval %s: R@10 text to audio %.1f %%, audio to text %.1f %% (chance %.1f, n %d); wrote %s",
        task.name, 100 * t2a["value"], 100 * a2t["value"], 100 * t2a["chance"], entry["n"], uri,
    )  # fmt: skip


class Measured(NamedTuple):
    """Both directions."""

    metrics: dict[str, dict[str, MetricRecord]]  # direction -> name -> metric
    outcomes: dict[str, np.ndarray]  # "<direction> R@1" and R@10 -> (N,) share of a clip's queries that succeed


def clips_of_captions(clips: Sequence[Clip]) -> np.ndarray:
    """Return for every caption the row of its clip."""
    return np.array([row for row, clip in enumerate(clips) for _ in clip.captions])


def measure(similarity: np.ndarray, clip_of_caption: np.ndarray) -> Measured:
    """Measure both directions for clips x captions (N, Q) and the clip of each caption (Q,)."""
    relevant = clip_of_caption[None, :] == np.arange(len(similarity))[:, None]  # (N, Q)
    chance_text = [
        float(np.mean([_chance(len(clip_of_caption), r, k) for r in relevant.sum(axis=1)])) for k in RECALL_AT
    ]
    chance_audio = [min(1.0, k / len(similarity)) for k in RECALL_AT]
    found = {
        "text_to_audio": _one_way(similarity.T, relevant.T, clip_of_caption, chance_audio),
        "audio_to_text": _one_way(similarity, relevant, np.arange(len(similarity)), chance_text),
    }
    return Measured(
        {way: metrics for way, (metrics, _) in found.items()},
        {f"{way} {recall}": hits for way, (_, by_recall) in found.items() for recall, hits in by_recall.items()},
    )


def _chance(items: int, relevant: int, k: int) -> float:
    """Return the probability that k items drawn at random hold at least one of the relevant ones."""
    return 1.0 - math.comb(items - relevant, k) / math.comb(items, k) if k < items else 1.0


def _one_way(
    similarity: np.ndarray, relevant: np.ndarray, clip_of_query: np.ndarray, chances: list[float]
) -> tuple[dict[str, MetricRecord], dict[str, np.ndarray]]:
    """Return the metrics, and for the recalls that are compared the share (N,) of each clip's queries that they count.

    Intervals resample clips, not queries: five captions of one clip are not five independent trials.
    """
    queries = np.bincount(clip_of_query)
    best = ranking.rank_best(similarity, relevant)

    def mean(values: np.ndarray, chance: float | None = None) -> MetricRecord:
        total = np.bincount(clip_of_query, weights=values)
        interval = metrics.bootstrap(lambda rows: total[rows].sum() / queries[rows].sum(), len(total))
        return results.metric(float(values.mean()), interval, chance)

    found = {f"R@{k}": mean(best.within(k), chance) for k, chance in zip(RECALL_AT, chances, strict=True)}
    found["mAP@10"] = mean(metrics.query_average_precision(similarity, relevant, k=10))
    found["MedR"] = results.metric(float(np.median(best.ranks)), metrics.bootstrap_median(best.ranks, clip_of_query))
    found["MeanR"] = mean(best.ranks)
    return found, {f"R@{k}": np.bincount(clip_of_query, weights=best.within(k)) / queries for k in COMPARED_AT}
