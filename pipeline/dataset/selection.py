"""Which clips and captions of a dataset are used: by an overlay's captions and scores, and by an audit.

Scores and verdicts are stored once and never applied; the thresholds are chosen here, by whoever trains or exports.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import authorship, ledgers, overlays, shards
from pipeline.dataset.overlays import AuditRow, CaptionsRow
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Thresholds on scores and verdicts. A caption that misses one is left out, and a clip without captions, too."""

    min_score: float | None = None
    """Minimum score in the captions' overlay, such as the cosine of `pipeline score`, from -1 to 1."""
    audit: str = ""
    """Overlay that `pipeline audit` wrote; the thresholds below read it."""
    max_foreign: int | None = None
    """Maximum number of events that a caption may mention outside the clip's tags and their relatives; 0 is strict."""
    max_unmentioned: int | None = None
    """Maximum number of the clip's tags that a caption may leave out."""
    min_words: int = 0
    """Minimum number of words of a caption."""
    max_uses: int | None = None
    """Maximum number of clips of the dataset that may share one caption, word for word."""
    drop_copies: bool = False
    """Leave out clips whose audio an earlier clip has, sample for sample."""


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """What to use of a dataset of shards."""

    captions: str = ""
    """Overlay whose captions to use, such as one that `pipeline score` or `recaption` wrote; empty takes the shards' own."""
    keep_fraction: float = 1.0
    """Share of the clips to keep, by the overlay's best score, above 0 up to 1."""
    sample_fraction: float = 1.0
    """Share of all clips to use, drawn by their keys, above 0 up to 1. A smaller share is a part of a larger one."""
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
        InputError: when an overlay is absent, or a threshold needs an overlay and none is named.
    """
    sizes = shards.sizes(data)
    _check(config)
    check_overlay(data, config.captions, sizes, "--captions", "`pipeline score` adds one")
    _check_scores(data, config)
    check_overlay(data, config.filter.audit, sizes, "--filter.audit", "`pipeline audit` adds one")
    return _selected(storage.resolve(data), list(sizes), config, columns)


def _selected(data: str, numbers: list[int], config: SelectionConfig, columns: Sequence[str]) -> Iterator[pa.Table]:
    names = list(dict.fromkeys(("key", "text", *columns)))
    chosen = _chosen_rows(data, numbers, config)
    first = 0
    for number, written in ledgers.written(data, numbers):
        texts, _ = _captions(data, number, written, config)
        used = pc.greater(pc.list_value_length(texts), 0)
        if chosen is not None:
            used = pc.and_(used, pa.array(chosen[first : first + len(written)]))
        first += len(written)
        yield written.set_column(written.schema.get_field_index("text"), "text", texts).select(names).filter(used)


def _chosen_rows(data: str, numbers: list[int], config: SelectionConfig) -> np.ndarray | None:
    """Return (clips,) bool: the clips that the shares by score and by draw have in common; None where both are 1."""
    chosen = None
    if config.keep_fraction < 1:
        parts = [_captions(data, number, written, config)[1] for number, written in ledgers.written(data, numbers)]
        chosen = _best_rows(parts, config.keep_fraction)
    if config.sample_fraction < 1:
        parts = [_ranks(written["key"].to_pylist()) for _, written in ledgers.written(data, numbers)]
        drawn = _best_rows(parts, config.sample_fraction)
        chosen = drawn if chosen is None else chosen & drawn
    return chosen


def _ranks(keys: Sequence[str]) -> np.ndarray:
    """Return a number for each key that depends on nothing else, float64 in [0, 1)."""
    digests = (hashlib.sha256(key.encode()).digest()[:6] for key in keys)  # 48 bits, which float64 holds
    return np.array([int.from_bytes(digest, "big") / 2**48 for digest in digests])


def _best_rows(parts: Sequence[np.ndarray], fraction: float) -> np.ndarray:
    """Return (clips,) bool: the share of the clips with the highest of the numbers, which come shard by shard."""
    scores = np.concatenate([np.zeros(0), *parts])
    rows = np.zeros(len(scores), bool)
    rows[keep_best(scores, fraction)] = True
    return rows


class _Captions(NamedTuple):
    """Captions of one clip, best first."""

    texts: list[str]
    scores: list[float]  # of each text, -inf where it has none; empty where no overlay gives scores


def _captions(data: str, number: int, written: pa.Table, config: SelectionConfig) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the captions to use of each written clip of a shard, and the best score that its overlay has for it."""
    overlay: dict[str, CaptionsRow] | None = None
    audit: dict[str, AuditRow] | None = None
    if config.captions:
        overlay = overlays.read_part(data, config.captions, number)
    if config.filter.audit:
        audit = overlays.read_part(data, config.filter.audit, number)
    texts = written["text"]
    scores = np.full(len(written), -np.inf)
    if overlay is not None or audit is not None:
        kept = []
        for row, (key, ledger_texts) in enumerate(zip(written["key"].to_pylist(), texts.to_pylist(), strict=True)):
            captions = _Captions(ledger_texts, []) if overlay is None else _of_overlay(overlay.get(key))
            passing = _above_min_score(captions, config.filter)
            kept.append(passing if audit is None else _passing_audit(passing, audit.get(key), config.filter))
            if captions.scores:
                scores[row] = captions.scores[0]
        texts = pa.chunked_array([pa.array(kept, pa.list_(pa.string()))])
    if config.best_only:
        texts = pc.list_slice(texts, 0, 1, return_fixed_size_list=False)
    return texts, scores


def _of_overlay(row: CaptionsRow | None) -> _Captions:
    """Return the captions of a clip's row of an overlay; a clip that has none is left out."""
    if row is None:
        return _Captions([], [])
    return _Captions(row["text"], [-np.inf if score is None else score for score in row["score"] or []])


def keep_best(scores: Sequence[float] | np.ndarray, fraction: float) -> np.ndarray:
    """Return the indices of the best-scored `fraction`, in their own order; ties go to the earlier."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return np.sort(order[: round(fraction * len(order))])


def _above_min_score(captions: _Captions, limits: FilterConfig) -> list[str]:
    if not captions.scores:
        return captions.texts
    least = -np.inf if limits.min_score is None else limits.min_score
    return [text for text, score in zip(captions.texts, captions.scores, strict=True) if score >= least]


def _passing_audit(texts: list[str], row: AuditRow | None, limits: FilterConfig) -> list[str]:
    """Return the captions of a clip that pass the thresholds on verdicts; a caption that is not in the audit passes none."""
    if row is None or (limits.drop_copies and row["copy"]):
        return []
    indices = {text: index for index, text in enumerate(row["text"])}
    return [text for text in texts if text in indices and _passes(row, indices[text], limits)]


def _passes(row: AuditRow, index: int, limits: FilterConfig) -> bool:
    measured = [
        (len(row["foreign"][index]), limits.max_foreign),
        (len(row["unmentioned"][index]), limits.max_unmentioned),
        (row["uses"][index], limits.max_uses),
    ]
    within = all(limit is None or value <= limit for value, limit in measured)
    return within and row["words"][index] >= limits.min_words


def _check(config: SelectionConfig) -> None:
    if not 0 < config.keep_fraction <= 1 or (config.keep_fraction < 1 and not config.captions):
        remedy = "use a share above 0 up to 1; below 1 needs --captions with scores"
        raise InputError("--keep-fraction", config.keep_fraction, remedy)
    if not 0 < config.sample_fraction <= 1:
        raise InputError("--sample-fraction", config.sample_fraction, "use a share above 0 up to 1")
    if config.filter.min_score is not None and not config.captions:
        raise InputError("--filter.min-score", config.filter.min_score, "needs --captions with scores")
    if not config.filter.audit and FilterConfig(min_score=config.filter.min_score) != config.filter:
        raise InputError("--filter.audit", "", "give the overlay that `pipeline audit` wrote, these thresholds read it")


def _check_scores(data: str, config: SelectionConfig) -> None:
    """Raise InputError when scores are to choose, and the overlay has none, or scores of captions that are replaced."""
    if config.keep_fraction == 1 and config.filter.min_score is None:
        return
    info = overlays.read_info(data, config.captions)
    if "score" in info and info["score"] is None:
        remedy = f"its captions have no scores; `pipeline score --captions {config.captions}` gives them some"
        raise InputError("--captions", config.captions, remedy)
    authorship.check_scored(data, config.captions, "--captions")


def check_overlay(data: str, name: str, sizes: Mapping[int, int], flag: str, remedy: str) -> None:
    """Raise InputError, naming the flag, when an overlay is named and lacks a part of the dataset.

    Args:
        data: the dataset.
        name: of the overlay; empty names none.
        sizes: clips of each shard of the dataset.
        flag: the flag that names the overlay.
        remedy: which stage writes such an overlay.
    """
    if not name:
        return
    overlays.check_exists(data, name, flag, remedy)
    parts = set(storage.list_names(overlays.folder(data, name)))
    if behind := [number for number, clips in sizes.items() if clips and shards.ledger_name(number) not in parts]:
        later = f"has no part for the shards {behind[:5]} that came later, by a retry"
        raise InputError(flag, name, f"{later}; run the stage that wrote it again, {remedy}")
