"""Phrases with times: what sounds in a clip and when, as `phrases` of a sample's JSON and column of the ledger.

    [{"phrase": "smoke detector", "segments": [[0.4, 2.1], [3.0, 4.5]]}]

A phrase is the first name of a label, in lower case. Its segments are seconds from the start of the clip as it is written:
sorted, apart from one another, and within the clip. A clip without the field has no times that are known.
"""

from collections.abc import Iterable, Sequence
from typing import TypedDict

import pyarrow as pa

from pipeline.sources import audioset
from pipeline.sources.clip import Event

TYPE = pa.list_(pa.struct([("phrase", pa.string()), ("segments", pa.list_(pa.list_(pa.float64())))]))
DIGITS = 3  # milliseconds


class Phrase(TypedDict):
    """One phrase of a clip."""

    phrase: str
    segments: list[list[float]]  # [start_s, end_s] of each


def of_events(events: Iterable[Event], duration_s: float) -> list[Phrase]:
    """Return the phrases of a clip in the order of their first onsets; labels with the same phrase become one.

    See `clipped` for those beyond the end of the clip.
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    for event in clipped(events, duration_s):
        spans.setdefault(audioset.label_text(event.label), []).append((event.start_s, event.end_s))
    return [{"phrase": phrase, "segments": merged(found)} for phrase, found in spans.items()]


def clipped(events: Iterable[Event], duration_s: float) -> list[Event]:
    """Return the parts of events that lie in a clip, by their starts; an event with no part in it is left out."""
    parts = (Event(event.label, max(0.0, event.start_s), min(event.end_s, duration_s)) for event in events)
    return sorted(
        (part for part in parts if part.start_s < part.end_s), key=lambda part: (part.start_s, part.end_s, part.label)
    )


def merged(spans: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Return spans, sorted by their starts, with those that touch or overlap as one."""
    joined: list[list[float]] = []
    for start_s, end_s in spans:
        if joined and start_s <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end_s)
        else:
            joined.append([start_s, end_s])
    return [[round(start_s, DIGITS), round(end_s, DIGITS)] for start_s, end_s in joined]
