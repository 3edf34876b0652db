"""Search in an index: `python -m eval search --index INDEX "rain on a tin roof"`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro

from eval.search import Hit, Mode, Query, Searcher
from eval.search.config import IndexConfig
from pipeline import audio, sources, storage
from pipeline.errors import InputError

TITLES = ("rank", "score", "key", "tags", "first caption", "where the audio lies")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(IndexConfig):
    """Find clips of an index by words, by a sound, or both."""

    text: tyro.conf.Positional[str] = ""
    """What is searched for, such as "rain on a tin roof"."""
    like: str = ""
    """Audio file whose sound is searched for, or the id of an indexed clip."""
    text_weight: float = 0.5
    """Share of the text where there is --like too, from 0 to 1."""
    tags: tuple[str, ...] = ()
    """Tags that every result has."""
    without_tags: Annotated[tuple[str, ...], tyro.conf.arg(name="not")] = ()
    """Tags that no result has."""
    mode: Mode = "embedding"
    """embedding compares the query with the audio, words searches the captions, hybrid ranks by both."""
    k: int = 20
    """Number of results, at most 1000."""
    json: bool = False
    """Print JSON in place of a table."""


def run(config: SearchConfig) -> None:
    """Print the results, best first."""
    searcher = Searcher(config.index, config.model, config.device)
    samples, like = _sound(config.like, searcher)
    hits = searcher.search(
        Query(
            text=config.text,
            samples=samples,
            like=like,
            text_weight=config.text_weight,
            tags=config.tags,
            without_tags=config.without_tags,
            mode=config.mode,
            k=config.k,
        )
    )
    if config.json:
        print(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=2, ensure_ascii=False))
    else:
        print(table(hits) if hits else "no clip matches")


def table(hits: Sequence[Hit]) -> str:
    """Return the hits as lines of text with aligned columns."""
    rows = [TITLES, *(_cells(rank, hit) for rank, hit in enumerate(hits, start=1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cells(rank: int, hit: Hit) -> tuple[str, ...]:
    where = f"{hit.uri} {hit.offset}+{hit.size}"
    caption = hit.captions[0] if hit.captions else ""
    return str(rank), f"{hit.score:.3f}", hit.key, ", ".join(hit.tags), caption, where


def _sound(like: str, searcher: Searcher) -> tuple[np.ndarray | None, str]:
    """Return the samples of an audio file, or the id of an indexed clip."""
    if not like:
        return None, ""
    try:
        return None, searcher.clip(like).id
    except KeyError:
        pass
    try:
        return audio.decode(sources.read_bytes(storage.resolve(like)), searcher.sample_rate_hz), ""
    except audio.AudioError as error:
        raise InputError(
            "--like", like, f"no audio to read ({error.reason}); give a file, or the id of a result"
        ) from None
