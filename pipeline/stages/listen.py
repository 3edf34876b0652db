"""The listening page of a dataset: `python -m pipeline listen --data <dataset>` writes `<dataset>/listen.html`.

Random clips, those with the lowest scores, those that an audit flagged, and, where several captioners wrote an overlay,
clips of each, so that a person can judge the captions.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipeline import storage
from pipeline.dataset import authorship, overlays
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.pages import listening_page
from pipeline.pages.listening_page import Caption, Facts, Sample, Section

log = logging.getLogger(__name__)
PAGE_FILE = "listen.html"
CaptionRows = Mapping[str, overlays.CaptionsRow]  # by key
AuditRows = Mapping[str, overlays.AuditRow]
MAX_CLIP_S = 60.0  # longer clips would make the page too large


@dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """Write a page of clips to hear beside their captions."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    captions: str = ""
    """Overlay whose captions and scores to show, such as one that `pipeline score` wrote; empty takes the shards' own."""
    audit: str = ""
    """Overlay that `pipeline audit` wrote; adds a part with the clips that it flagged."""
    clips: int = 12
    """Clips in each part of the page."""


def run(config: ListenConfig) -> None:
    """Write the page."""
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a finished `python -m pipeline caption`")
    try:
        index = ClipIndex(config.data)
    except FileNotFoundError as error:
        raise InputError("--data", config.data, str(error)) from None
    overlays.check_exists(config.data, config.captions)
    overlays.check_exists(config.data, config.audit, "--audit")
    captions = overlays.read_captions(index.data, config.captions) if config.captions else {}
    audit = overlays.read_audit(index.data, config.audit) if config.audit else {}
    uri = storage.join(index.data, PAGE_FILE)
    storage.publish(uri, render(index, config, captions, audit).encode())
    log.info("listen: wrote %s", uri)


def render(index: ClipIndex, config: ListenConfig, captions: CaptionRows, audit: AuditRows) -> str:
    """Return the page as HTML."""
    short = pc.indices_nonzero(pc.less_equal(index.written["duration_s"], MAX_CLIP_S)).to_pylist()
    shuffled = sorted(short, key=lambda row: hashlib.sha256(index.keys[row].encode()).digest())
    scores = _first_scores(index, short, captions)
    kind = "score" if captions else "captioner's score"
    flagged = {key for key, verdicts in audit.items() if any(verdicts["foreign"])}
    flagged_rows = [row for row in shuffled if index.keys[row] in flagged]
    records = {key: _records(row) for key, row in captions.items()}
    wins = {name: found["first"] for name, found in authorship.count(records.values()).items()}
    parts = [
        ("Random clips", "Drawn by a hash of their names.", shuffled),
        ("Worst-scored clips", f"Lowest {kind} of the first caption.", sorted(scores, key=lambda row: scores[row])),
        ("Flagged clips", "A caption mentions an event outside the clip's tags.", flagged_rows),
        *_parts_by_captioner(index, shuffled, records, wins),
    ]
    sections = [
        Section(title, note, [_sample(index, row, captions, audit) for row in rows[: config.clips]])
        for title, note, rows in parts
        if rows
    ]
    return listening_page.render(_facts(index, captions, wins), sections)


def _parts_by_captioner(
    index: ClipIndex, shuffled: list[int], records: Mapping[str, list[dict[str, Any]]], wins: Mapping[str, int]
) -> list[tuple[str, str, list[int]]]:
    """Return a part for each captioner of an overlay of several: clips whose first caption it wrote."""
    first = {key: authorship.title(of_clip[0]) for key, of_clip in records.items() if of_clip}
    return [
        (
            f"First caption by {name}",
            f"{count:,} of {len(first):,} clips.",
            [row for row in shuffled if first.get(index.keys[row]) == name],
        )
        for name, count in wins.items()
        if len(wins) > 1
    ]


def _records(row: overlays.CaptionsRow) -> list[dict[str, Any]]:
    """Return the records of a clip's captions in an overlay, best first; none where the overlay keeps none."""
    records = {record["text"]: record for record in json.loads(row["captions"] or "[]")}
    return [records[text] for text in row["text"] if text in records]


def _first_scores(index: ClipIndex, rows: list[int], captions: CaptionRows) -> dict[int, float]:
    """Return the score of the first caption of each clip that has a score: the overlay's, or else the captioner's."""
    ledger_scores = index.written["score"].to_pylist()
    overlays_of_rows = ((row, captions.get(index.keys[row])) for row in rows)
    scores = {row: overlay["score"] if overlay else ledger_scores[row] for row, overlay in overlays_of_rows}
    return {row: found[0] for row, found in scores.items() if found and found[0] is not None}


def _facts(index: ClipIndex, captions: CaptionRows, wins: Mapping[str, int]) -> Facts:
    """Return the numbers of the page; captions are those of the overlay where there is one."""
    by_clip = [row["text"] for row in captions.values()] if captions else index.texts()
    texts = [text for of_clip in by_clip for text in of_clip]
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
        captioners=dict(wins),
    )


def _sample(index: ClipIndex, row: int, captions: CaptionRows, audit: AuditRows) -> Sample:
    meta, key = index.meta(row), index.keys[row]
    records: dict[str, Mapping[str, Any]] = {record["text"]: record for record in meta["captions"]}
    overlay, verdicts = captions.get(key), audit.get(key)
    records |= {record["text"]: record for record in (_records(overlay) if overlay else ())}
    texts = overlay["text"] if overlay else meta["text"]
    scores = dict(zip(overlay["text"], overlay["score"], strict=True)) if overlay else {}
    return Sample(
        key=key,
        source_id=str(meta["source_id"]),
        tags=meta["tag"],
        flac=index.flac(row),
        captions=[_caption(text, records.get(text), scores.get(text), verdicts) for text in texts],
        phrases=meta.get("phrases", ()),
    )


def _caption(
    text: str, record: Mapping[str, Any] | None, score: float | None, verdicts: overlays.AuditRow | None
) -> Caption:
    """Return a caption with how it was made, its score, and the verdicts of the audit."""
    notes, flags = [], []
    if record:
        notes += [authorship.title(record), *([_guidance(record), record["decoding"]] if "decoding" in record else [])]
        if record.get("score") is not None:
            notes.append(f"captioner's score {record['score']:.2f}")
    if score is not None:
        notes.append(f"score {score:.2f}")
    if verdicts and text in verdicts["text"]:
        index = verdicts["text"].index(text)
        flags = [f"mentions {event}, not tagged" for event in verdicts["foreign"][index]]
        notes += [f"leaves out {tag}" for tag in verdicts["unmentioned"][index]]
        if verdicts["uses"][index] > 1:
            notes.append(f"the same words for {verdicts['uses'][index]} clips")
    return Caption(text, notes, flags)


def _guidance(record: Mapping[str, Any]) -> str:
    """Return which tags guided the captioner."""
    if record["tags_given"]:
        return "with tags"
    if "predicted_tags" in record:
        return f"with predicted tags: {record['predicted_tags'] or 'none'}"
    if "shuffled_tags" in record:
        return f"with the tags of another clip: {record['shuffled_tags'] or 'none'}"
    return "without tags"
