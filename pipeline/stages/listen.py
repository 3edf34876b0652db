"""The listening page of a dataset: `python -m pipeline listen --data <dataset>` writes `<dataset>/listen.html`.

Random clips, those with the lowest scores, and those that an audit flagged: to hear what the captions are worth.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import shards
from pipeline.errors import InputError
from pipeline.pages import listening_page
from pipeline.pages.listening_page import Facts, Sample, Section, Text

log = logging.getLogger(__name__)
PAGE_FILE = "listen.html"
LONGEST_S = 60.0  # longer clips would make the page too heavy


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
    overlays = {}
    for flag, name in (("--captions", config.captions), ("--audit", config.audit)):
        try:
            overlays[flag] = shards.read_overlay(index.data, name)[0] if name else {}
        except FileNotFoundError:
            have = storage.list_names(storage.join(index.data, "overlays"))
            raise InputError(flag, name, f"no such overlay in {config.data}; it has {have}") from None
    uri = storage.join(index.data, PAGE_FILE)
    storage.publish(uri, render(index, config, overlays["--captions"], overlays["--audit"]).encode())
    log.info("listen: wrote %s", uri)


def render(index: shards.ClipIndex, config: ListenConfig, told: dict[str, Any], audit: dict[str, Any]) -> str:
    """Return the page as HTML."""
    short = pc.indices_nonzero(pc.less_equal(index.written["duration_s"], LONGEST_S)).to_pylist()
    scores = index.written["score"].to_pylist()
    kind = "score" if told else "captioner's score"
    best = {row: (told[index.keys[row]]["score"] if told and index.keys[row] in told else scores[row]) for row in short}
    worst = sorted((row for row in short if best[row]), key=lambda row: best[row][0])
    flagged = [row for row in _shuffled(index, short) if any(audit.get(index.keys[row], {}).get("foreign", []))]
    parts = [
        ("Random clips", "Drawn by a hash of their names.", _shuffled(index, short)),
        ("Worst-scored clips", f"Lowest {kind} of the first caption.", worst),
        ("Flagged clips", "A caption mentions an event outside the clip's tags.", flagged),
    ]
    sections = [
        Section(title, note, [_sample(index, row, told, audit) for row in rows[: config.clips]])
        for title, note, rows in parts
        if rows
    ]
    return listening_page.render(_facts(index), sections)


def _shuffled(index: shards.ClipIndex, rows: list[int]) -> list[int]:
    return sorted(rows, key=lambda row: hashlib.sha256(index.keys[row].encode()).digest())


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


def _sample(index: shards.ClipIndex, row: int, told: dict[str, Any], audit: dict[str, Any]) -> Sample:
    meta, key = index.meta(row), index.keys[row]
    records = {record["text"]: record for record in meta["captions"]}
    overlay, verdicts = told.get(key), audit.get(key)
    texts = overlay["text"] if overlay else meta["text"]
    scores = dict(zip(overlay["text"], overlay["score"], strict=True)) if overlay else {}
    return Sample(
        key=key,
        source_id=str(meta["source_id"]),
        tags=meta["tag"],
        flac=index.flac(row),
        texts=[Text(text, _notes(records.get(text, {}), scores.get(text), verdicts, text)) for text in texts],
    )


def _notes(record: dict[str, Any], score: float | None, verdicts: dict[str, Any] | None, text: str) -> list[str]:
    """Say how a caption was made and what is thought of it."""
    notes = []
    if record:
        heard = f"hears {record['predicted_tags'] or 'no tags'}" if "predicted_tags" in record else "without tags"
        given = "with tags" if record["tags_given"] else heard
        notes += [given, record["decoding"], f"captioner's score {record['score']:.2f}"]
    if score is not None:
        notes.append(f"score {score:.2f}")
    if verdicts and text in verdicts["text"]:
        place = verdicts["text"].index(text)
        notes += [f"{listening_page.FLAG}mentions {event}, not tagged" for event in verdicts["foreign"][place]]
        notes += [f"leaves out {tag}" for tag in verdicts["unmentioned"][place]]
        if verdicts["uses"][place] > 1:
            notes.append(f"the same words for {verdicts['uses'][place]} clips")
    return notes
