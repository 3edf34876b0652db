"""Audio-text retrieval in both directions: `python -m eval retrieval <config>`.

Every caption is a query for its clip; a clip's query counts the best of its captions. Whole clips, mean rank for ties.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval import embed, metrics, results, tasks
from eval.embed import embed_audio, embed_text
from pipeline.cli import InputError
from pipeline.clip import Clip
from train import checkpoint
from train.models.clap import Clap

log = logging.getLogger("eval.retrieval")
RECALL_AT = (1, 5, 10, 50)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Retrieve clips by their captions and captions by their clips."""

    model: str = ""
    """Checkpoint directory that `train pretrain` wrote."""
    task: str = ""
    """One of the tasks in eval/tasks.py."""
    task_dir: str = ""
    """The dataset's folder."""
    folds: tuple[str, ...] = ()
    """Evaluate only these folds; empty takes all."""
    out: str = ""
    """Folder or URI of this model's results.json."""
    batch_size: int = 64
    """Clips in one pass of the model."""
    device: str = "cpu"
    """Torch device, cpu or cuda."""


def run(config: RetrievalConfig) -> None:
    """Evaluate and add the numbers to results.json."""
    task, listed = tasks.read(config.task, config.task_dir, config.folds)
    results.check(config.out, checkpoint.describe(config.model, "--model", Clap)["revision"])
    device = embed.device(config.device)
    if config.batch_size < 1:
        raise InputError("--batch-size", config.batch_size, "use 1 or more")
    clips = [clip for clip in listed if clip.captions]
    if not clips:
        raise InputError("--task-dir", config.task_dir, "none of its clips has a caption")
    about = checkpoint.load(config.model)
    model = about.model.to(device)
    embedded = embed_audio(model, clips, config.batch_size)
    texts = [caption for clip in embedded.clips for caption in clip.captions]
    entry = {
        **measure(embedded.vectors @ embed_text(model, texts).T, caption_owners(embedded.clips)),
        "num_captions": len(texts),
        "fold_rule": task.fold_rule,
        "folds": list(config.folds),
        **results.protocol(embedded.clips, len(clips), embedded.missing, about, config.model),
    }
    uri = results.publish(config.out, f"retrieval {task.name}", about, config.model, entry)
    t2a, a2t = (entry[way]["R@10"] for way in ("text_to_audio", "audio_to_text"))
    log.info(
        "retrieval %s: R@10 text to audio %.1f %%, audio to text %.1f %% (chance %.1f, n %d); wrote %s",
        task.name, 100 * t2a["value"], 100 * a2t["value"], 100 * t2a["chance"], entry["n"], uri,
    )  # fmt: skip


def caption_owners(clips: Sequence[Clip]) -> np.ndarray:
    """Return for every caption the row of its clip."""
    return np.array([row for row, clip in enumerate(clips) for _ in clip.captions])


def measure(similarity: np.ndarray, owners: np.ndarray) -> dict[str, Any]:
    """Return the metrics of both directions for clips x captions (N, Q) and the clip of each caption (Q,)."""
    relevant = owners[None, :] == np.arange(len(similarity))[:, None]  # (N, Q)
    chance_text = [float(np.mean([_chance(len(owners), r, k) for r in relevant.sum(axis=1)])) for k in RECALL_AT]
    chance_audio = [min(1.0, k / len(similarity)) for k in RECALL_AT]
    return {
        "text_to_audio": _one_way(similarity.T, relevant.T, owners, chance_audio),
        "audio_to_text": _one_way(similarity, relevant, np.arange(len(similarity)), chance_text),
    }


def _chance(items: int, relevant: int, k: int) -> float:
    """Return the probability that k items drawn at random hold at least one of the relevant ones."""
    return 1.0 - math.comb(items - relevant, k) / math.comb(items, k) if k < items else 1.0


def _one_way(
    similarity: np.ndarray, relevant: np.ndarray, clip_of_query: np.ndarray, chances: list[float]
) -> dict[str, Any]:
    """Intervals resample clips, not queries: five captions of one clip are not five independent trials."""
    queries = np.bincount(clip_of_query)
    ranks = metrics.best_ranks(similarity, relevant)
    found = {}
    for k, chance in zip(RECALL_AT, chances, strict=True):
        hit = ranks <= k
        hits = np.bincount(clip_of_query, weights=hit)
        interval = metrics.bootstrap(lambda rows, hits=hits: hits[rows].sum() / queries[rows].sum(), len(hits))  # type: ignore[misc]
        found[f"R@{k}"] = results.metric(float(hit.mean()), interval, chance=chance)
    precision = metrics.query_average_precision(similarity, relevant, k=10)
    found["mAP@10"] = results.metric(float(precision.mean()))
    found["MedR"] = results.metric(float(np.median(ranks)))
    found["MeanR"] = results.metric(float(ranks.mean()))
    return found
