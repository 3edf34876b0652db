"""What is searched for, and what is wrong with it."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eval.search.index import quoted
from pipeline.errors import InputError

Mode = Literal["embedding", "words", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_K = 1_000


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is searched for: a text, a sound or both, among the clips that have some tags and lack others."""

    text: str = ""
    """Free text. Modes `words` and `hybrid` search its words in the captions."""
    samples: np.ndarray | None = None
    """A sound, int16 (T,) mono at the model's rate."""
    like: str = ""
    """Id of an indexed clip, whose sound is searched for. The clip itself is no result."""
    text_weight: float = 0.5
    """Share of the text where there is a sound too, from 0 to 1."""
    tags: tuple[str, ...] = ()
    """A result has all of these."""
    without_tags: tuple[str, ...] = ()
    """A result has none of these."""
    mode: Mode = "embedding"
    """`embedding` ranks by the cosine of the query and the audio; `words` by BM25 of the captions; `hybrid` by the ranks
    that both give."""
    k: int = 20
    """Number of results, from 1 to MAX_K."""

    @property
    def has_text(self) -> bool:
        """Whether there are words."""
        return bool(self.text.strip())

    @property
    def has_sound(self) -> bool:
        """Whether there is a sound."""
        return bool(self.like) or self.samples is not None

    @property
    def where(self) -> str:
        """Return the filter as LanceDB's SQL; '' where there is none."""
        parts = []
        if self.tags:
            parts.append(f"array_has_all(tags, [{', '.join(map(quoted, self.tags))}])")
        if self.without_tags:
            parts.append(f"NOT array_has_any(tags, [{', '.join(map(quoted, self.without_tags))}])")
        if self.like:
            parts.append(f"id != {quoted(self.like)}")
        return " AND ".join(parts)


def check(query: Query) -> None:
    """Raise InputError, naming a flag of `eval search`, when a query asks for nothing, for too much or for two things."""
    if not 1 <= query.k <= MAX_K:
        raise InputError("--k", query.k, f"use 1 to {MAX_K}")
    if query.mode not in MODES:
        raise InputError("--mode", query.mode, f"use one of {', '.join(MODES)}")
    if not 0 <= query.text_weight <= 1:
        raise InputError("--text-weight", query.text_weight, "use 0 to 1")
    if not (query.has_text or query.has_sound):
        raise InputError("TEXT", "", "give words to search for, or --like a sound")
    if query.mode != "embedding" and not query.has_text:
        raise InputError("--mode", query.mode, "searches words: give a text, or use --mode embedding")
    if query.mode == "words" and query.has_sound:
        raise InputError("--mode", query.mode, "cannot use a sound: use --mode embedding or hybrid, or leave it out")
    if query.samples is None:
        return
    if query.like:
        raise InputError("--like", query.like, "give one sound only")
    if query.samples.dtype != np.int16 or query.samples.ndim != 1 or not query.samples.size:
        raise InputError("--like", "", "the sound must be int16 mono samples, at least one")


def check_tags(query: Query, present: Collection[str]) -> None:
    """Raise InputError when a query names a tag that no clip has; `present` are the tags, most frequent first."""
    for flag, tags in (("--tags", query.tags), ("--not", query.without_tags)):
        for tag in tags:
            if tag not in present:
                raise InputError(flag, tag, f"no clip has this tag{_suggestion(tag, list(present))}")


def _suggestion(tag: str, present: list[str]) -> str:
    lower = {each.lower(): each for each in reversed(present)}
    near = [lower[each] for each in difflib.get_close_matches(tag.lower(), list(lower), 3)]
    near += [each for each in present if tag.lower() in each.lower() and each not in near][:2]
    return f"; close to it: {', '.join(near)}" if near else f"; most frequent: {', '.join(present[:3])}"
