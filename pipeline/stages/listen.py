"""The listening page of a dataset: `python -m pipeline listen --data <dataset>` writes `<dataset>/listen.html`.

Random clips, those with the lowest scores, and those that an audit flagged: to hear what the captions are worth.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import shards
from pipeline.errors import InputError
from pipeline.pages import listening_page
from pipeline.pages.listening_page import Caption, Facts, Sample, Section

log = logging.getLogger(__name__)
PAGE_FILE = "listen.html"
MAX_DURATION_S = 60.0  # longer clips would make the page too heavy


Rows = dict[str, dict[str, Any]]  # JSON of an overlay by key of the clip


class Overlays(NamedTuple):
    """Rows of the overlays to show; empty where none was asked for."""

    captions: Rows
    audit: Rows


@dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """Write a page of clips to hear beside their captions."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    captions: str = ""
    """Overlay whose captions and scores to show, such as one that `pipeline score` wrote; empty takes the shards' own."""
    audit: str = ""
    """Overlay that `pipeline audit` wrote; adds what it flagged."""
    clips: int = 12
    """Clips in each part of the page."""


def run(config: ListenConfig) -> None:
    """Write the page."""
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a finished `python -m pipeline caption`")
    try:
        index = shards.ClipIndex(config.data)
    except FileNotFoundError as error:
        raise InputError("--data", config.data, str(error)) from None
    overlays = Overlays(
        captions=_read_overlay(index, "--captions", config.captions),
        audit=_read_overlay(index, "--audit", config.audit),
    )
    uri = storage.join(index.data, PAGE_FILE)
    storage.publish(uri, render(index, config.clips, overlays).encode())
    log.info("listen: wrote %s", uri)


def _read_overlay(index: shards.ClipIndex, flag: str, name: str) -> Rows:
    try:
        return shards.read_overlay(index.data, name)[0] if name else {}
    except FileNotFoundError:
        have = storage.list_names(storage.join(index.data, "overlays"))
        raise InputError(flag, name, f"no such overlay in {index.data}; it has {have}") from None


def render(index: shards.ClipIndex, num_clips: int, overlays: Overlays) -> str:
    """Return the page as HTML, with this many clips in each part."""
    short = pc.indices_nonzero(pc.less_equal(index.written["duration_s"], MAX_DURATION_S)).to_pylist()
    shuffled = _shuffled(index, short)
    kind = "score" if overlays.captions else "captioner's score"
    parts = [
        ("Random clips", "Drawn by a hash of their names.", shuffled),
        ("Worst-scored clips", f"Lowest {kind} of the first caption.", _worst_first(index, short, overlays)),
        (
            "Flagged clips",
            "A caption mentions an event outside the clip's tags.",
            [row for row in shuffled if any(overlays.audit.get(index.keys[row], {}).get("foreign", []))],
        ),
    ]
    sections = [
        Section(title, note, [_sample(index, row, overlays) for row in rows[:num_clips]])
        for title, note, rows in parts
        if rows
    ]
    return listening_page.render(_facts(index), sections)


def _shuffled(index: shards.ClipIndex, rows: list[int]) -> list[int]:
    return sorted(rows, key=lambda row: hashlib.sha256(index.keys[row].encode()).digest())


def _worst_first(index: shards.ClipIndex, rows: list[int], overlays: Overlays) -> list[int]:
    """Return the rows whose first caption has a score, the lowest score first."""
    ledger = index.written["score"].to_pylist()
    scores = {
        row: overlays.captions[key]["score"] if (key := index.keys[row]) in overlays.captions else ledger[row]
        for row in rows
    }
    return sorted((row for row in rows if scores[row]), key=lambda row: scores[row][0])


def _facts(index: shards.ClipIndex) -> Facts:
    texts = [text for captions in index.texts() for text in captions]
    seconds = index.written["duration_s"].to_pylist()
    return Facts(
        title=index.data.rstrip("/").rpartition("/")[2],
        headline=[
            (f"{len(index):,}", "clips written"),
            (f"{sum(seconds) / 3600:,.1f}", "hours of audio"),
            (f"{len(texts):,}", "captions"),
            (f"{len(set(texts)):,}", "different captions"),
        ],
        tags=dict(Counter(tag for tags in index.tags() for tag in tags).most_common()),
        lengths=dict(Counter(len(text.split()) for text in texts)),
        durations=dict(Counter(round(s) for s in seconds)),
    )


def _sample(index: shards.ClipIndex, row: int, overlays: Overlays) -> Sample:
    meta, key = index.meta(row), index.keys[row]
    records = {record["text"]: record for record in meta["captions"]}
    overlay, audited = overlays.captions.get(key), overlays.audit.get(key)
    texts = overlay["text"] if overlay else meta["text"]
    scores = dict(zip(overlay["text"], overlay["score"], strict=True)) if overlay else {}
    return Sample(
        key=key,
        source_id=str(meta["source_id"]),
        tags=meta["tag"],
        flac=index.flac(row),
        captions=[_caption(text, records.get(text), scores.get(text), audited) for text in texts],
    )


def _caption(text: str, record: dict[str, Any] | None, score: float | None, audited: dict[str, Any] | None) -> Caption:
    """Return a caption with how it was made, its score and what the audit found."""
    notes, flags = _made_by(record) if record else [], []
    if score is not None:
        notes.append(f"score {score:.2f}")
    if audited and text in audited["text"]:
        i = audited["text"].index(text)
        flags = [f"mentions {event}, not tagged" for event in audited["foreign"][i]]
        notes += [f"leaves out {tag}" for tag in audited["unmentioned"][i]]
        if audited["uses"][i] > 1:
            notes.append(f"the same words for {audited['uses'][i]} clips")
    return Caption(text, notes, flags)


def _made_by(record: dict[str, Any]) -> list[str]:
    if record["tags_given"]:
        guidance = "with tags"
    elif "predicted_tags" in record:
        guidance = f"with predicted tags: {record['predicted_tags'] or 'none'}"
    else:
        guidance = "without tags"
    return [guidance, record["decoding"], f"captioner's score {record['score']:.2f}"]
