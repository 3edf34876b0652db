"""Which clips and captions of a dataset are used: an overlay's captions, its scores, and the verdicts of an audit.

Scores and verdicts are stored once and never applied; the thresholds are chosen here, by whoever trains or exports.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline import shards, storage
from pipeline.cli import InputError

NOTHING: dict[str, Any] = {"text": [], "score": []}  # of a clip that an overlay does not have
NO_VERDICT: dict[str, Any] = {"text": [], "copy": False}  # what was not judged passes no threshold


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Thresholds on stored verdicts; a caption that misses one is left out, and a clip without captions too."""

    min_score: float | None = None
    """Least score in the captions' overlay, such as the cosine of `pipeline score`, from -1 to 1."""
    audit: str = ""
    """Overlay that `pipeline audit` wrote; the thresholds below read it."""
    max_foreign: int | None = None
    """Most events that a caption may mention outside the clip's tags and their relatives; 0 is strict."""
    max_unmentioned: int | None = None
    """Most tags of the clip that a caption may leave out."""
    min_words: int = 0
    """Fewest words of a caption."""
    max_uses: int | None = None
    """Most clips of the dataset that may share one caption, word for word."""
    drop_copies: bool = False
    """Leave out clips whose audio an earlier clip has, sample for sample."""


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """What to use of a dataset of shards."""

    captions: str = ""
    """Overlay whose captions to use, such as one that `pipeline score` or `recaption` wrote; empty takes the shards' own."""
    keep_fraction: float = 1.0
    """Share of the clips to keep, by the overlay's best score, above 0 up to 1."""
    best_only: bool = False
    """Use each clip's first caption only; otherwise all of them."""
    filter: FilterConfig = field(default_factory=FilterConfig)
    """Thresholds on stored scores and verdicts."""


class Chosen(NamedTuple):
    """A clip that is used."""

    row: int  # in the index
    texts: list[str]


def select(index: shards.Index, config: SelectionConfig) -> list[Chosen]:
    """Return the clips to use with their captions, in index order.

    Raises:
        InputError: when an overlay is not there, or a threshold needs one that is not named.
    """
    _check(config)
    overlay = _overlay(index, config.captions, "--captions", "`pipeline score` adds one") if config.captions else None
    audit = (
        _overlay(index, config.filter.audit, "--filter.audit", "`pipeline audit` adds one")
        if config.filter.audit
        else None
    )
    chosen = []
    best = []
    for row, (key, own) in enumerate(zip(index.keys, index.texts(), strict=True)):
        told: dict[str, Any] = {"text": own, "score": None} if overlay is None else overlay.get(key, NOTHING)
        kept = _passing(told, audit.get(key, NO_VERDICT) if audit is not None else None, config.filter)
        chosen.append(Chosen(row, kept[:1] if config.best_only else kept))
        best.append(float(told["score"][0]) if told["score"] else -np.inf)
    kept_rows = keep_best(best, config.keep_fraction) if config.keep_fraction < 1 else range(len(chosen))
    return [chosen[row] for row in kept_rows if chosen[row].texts]


def keep_best(scores: Sequence[float], fraction: float) -> list[int]:
    """Return the indices of the best-scored `fraction`, in their own order; ties go to the earlier."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return sorted(order[: round(fraction * len(order))].tolist())


def _passing(told: dict[str, Any], audit: dict[str, Any] | None, limits: FilterConfig) -> list[str]:
    """Return the captions of a clip that pass every threshold, best first."""
    if audit is not None and limits.drop_copies and audit["copy"]:
        return []
    scores = told["score"] or [np.inf] * len(told["text"])
    least = -np.inf if limits.min_score is None else limits.min_score
    texts = [text for text, score in zip(told["text"], scores, strict=True) if score >= least]
    if audit is None:
        return texts
    place = {text: i for i, text in enumerate(audit["text"])}
    return [text for text in texts if text in place and _fine(audit, place[text], limits)]


def _fine(audit: dict[str, Any], i: int, limits: FilterConfig) -> bool:
    measured = [
        (len(audit["foreign"][i]), limits.max_foreign),
        (len(audit["unmentioned"][i]), limits.max_unmentioned),
        (audit["uses"][i], limits.max_uses),
    ]
    return audit["words"][i] >= limits.min_words and all(most is None or value <= most for value, most in measured)


def _check(config: SelectionConfig) -> None:
    if not 0 < config.keep_fraction <= 1 or (config.keep_fraction < 1 and not config.captions):
        remedy = "use a share above 0 up to 1; below 1 needs --captions with scores"
        raise InputError("--keep-fraction", config.keep_fraction, remedy)
    if config.filter.min_score is not None and not config.captions:
        raise InputError("--filter.min-score", config.filter.min_score, "needs --captions with scores")
    if not config.filter.audit and FilterConfig(min_score=config.filter.min_score) != config.filter:
        raise InputError("--filter.audit", "", "give the overlay that `pipeline audit` wrote, these thresholds read it")


def _overlay(index: shards.Index, name: str, flag: str, remedy: str) -> dict[str, dict[str, Any]]:
    try:
        rows = shards.read_overlay(index.data, name)[0]
    except FileNotFoundError:
        have = storage.list_names(storage.join(index.data, "overlays"))
        raise InputError(flag, name, f"no such overlay in {index.data}; it has {have}, {remedy}") from None
    if behind := shards.without_part(index, name):
        told = f"has no part for the shards {behind[:5]} that came later, by a retry"
        raise InputError(flag, name, f"{told}; run the stage that wrote it again, {remedy}")
    return rows
