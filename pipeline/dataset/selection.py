"""Which clips and captions of a dataset are used: an overlay's captions, its scores, and the verdicts of an audit.

Scores and verdicts are stored once and never applied; the thresholds are chosen here, by whoever trains or exports.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import ledgers, shards
from pipeline.errors import InputError

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


def select(data: str, config: SelectionConfig, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Yield the clips to use shard by shard, in the order of the dataset, without holding what was yielded before.

    Args:
        data: a finished dataset of shards.
        config: what to use.
        columns: more columns of the ledger, or `shard`, to yield.

    Returns:
        Tables of `key`, `text` (the captions to use, best first) and the columns.

    Raises:
        FileNotFoundError: when `data` is no finished dataset of shards.
        InputError: when an overlay is not there, or a threshold needs one that is not named.
    """
    sizes = shards.sizes(data)
    _check(config)
    for name, flag, stage in (
        (config.captions, "--captions", "score"),
        (config.filter.audit, "--filter.audit", "audit"),
    ):
        if name:
            _check_overlay(data, name, sizes, flag, f"`pipeline {stage}` adds one")
    return _selected(storage.resolve(data), list(sizes), config, columns)


def _selected(data: str, numbers: list[int], config: SelectionConfig, columns: Sequence[str]) -> Iterator[pa.Table]:
    names = list(dict.fromkeys(("key", "text", *columns)))
    best = _best_rows(data, numbers, config) if config.keep_fraction < 1 else None
    first = 0
    for number, written in ledgers.written(data, numbers):
        texts, _ = _captions(data, number, written, config)
        used = pc.greater(pc.list_value_length(texts), 0)
        if best is not None:
            used = pc.and_(used, pa.array(best[first : first + len(written)]))
        first += len(written)
        place = written.schema.get_field_index("text")
        yield written.set_column(place, "text", texts).select(names).filter(used)


def _best_rows(data: str, numbers: list[int], config: SelectionConfig) -> np.ndarray:
    """Return (clips,) bool: the clips with the best scores, as many as `keep_fraction` keeps."""
    scores = np.concatenate(
        [np.zeros(0), *(_captions(data, n, written, config)[1] for n, written in ledgers.written(data, numbers))]
    )
    rows = np.zeros(len(scores), bool)
    rows[keep_best(scores, config.keep_fraction)] = True
    return rows


def _captions(data: str, number: int, written: pa.Table, config: SelectionConfig) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the captions to use of each written clip of a shard, and the best score that its overlay has for it."""
    told = _overlay(data, config.captions, number) if config.captions else None
    audit = _overlay(data, config.filter.audit, number) if config.filter.audit else None
    texts = written["text"]
    scores = np.full(len(written), -np.inf)
    if told is not None or audit is not None:
        kept = []
        for row, (key, own) in enumerate(zip(written["key"].to_pylist(), texts.to_pylist(), strict=True)):
            found = {"text": own, "score": None} if told is None else told.get(key, NOTHING)
            kept.append(_passing(found, None if audit is None else audit.get(key, NO_VERDICT), config.filter))
            if found["score"]:
                scores[row] = found["score"][0]
        texts = pa.chunked_array([pa.array(kept, pa.list_(pa.string()))])
    if config.best_only:
        texts = pc.list_slice(texts, 0, 1, return_fixed_size_list=False)
    return texts, scores


def keep_best(scores: Sequence[float] | np.ndarray, fraction: float) -> np.ndarray:
    """Return the indices of the best-scored `fraction`, in their own order; ties go to the earlier."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return np.sort(order[: round(fraction * len(order))])


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


def _overlay(data: str, name: str, shard: int) -> dict[str, dict[str, Any]]:
    """Read the rows of an overlay for one shard, by key; none where it has no part for a shard without written clips."""
    try:
        part = storage.read_table(storage.join(shards.overlay_folder(data, name), shards.ledger_name(shard)))
    except FileNotFoundError:
        return {}
    return {row["key"]: row for row in part.to_pylist()}


def _check_overlay(data: str, name: str, sizes: Mapping[int, int], flag: str, remedy: str) -> None:
    folder = shards.overlay_folder(data, name)
    if not storage.exists(storage.join(folder, shards.OVERLAY_FILE)):
        have = storage.list_names(storage.join(storage.resolve(data), "overlays"))
        raise InputError(flag, name, f"no such overlay in {data}; it has {have}, {remedy}")
    parts = set(storage.list_names(folder))
    if behind := [number for number, clips in sizes.items() if clips and shards.ledger_name(number) not in parts]:
        later = f"has no part for the shards {behind[:5]} that came later, by a retry"
        raise InputError(flag, name, f"{later}; run the stage that wrote it again, {remedy}")
