"""Published captions as an overlay: `python -m pipeline import-captions --data <dataset> --source <file> --name <overlay>`.

Captions are matched to clips by YouTube id and start. Audio stays as it is, and what finds no match is counted.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import authorship, ledgers, overlays, shards
from pipeline.errors import InputError
from pipeline.graph.finalize import read_finished_plan
from pipeline.pages import dataset_card
from pipeline.planning.plan import Plan
from pipeline.sources import published_captions
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.published_captions import PublishedCaptions
from pipeline.sources.rows import ListingError

log = logging.getLogger(__name__)
MAX_DIFFERENCE_S = 0.5  # between the starts of a clip: files round them
YOUTUBE = "youtube:"


@dataclass(frozen=True, kw_only=True)
class ImportCaptionsConfig:
    """Add published captions to a dataset of shards, as an overlay."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    source: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """CSV, TSV, JSON or JSON Lines of captions by YouTube id, such as those of AudioSetCaps, Auto-ACD or WavCaps."""
    name: str = ""
    """Name of the overlay, such as audiosetcaps; becomes <data>/overlays/<name>."""


class Matcher:
    """Finds the captions of clips, and counts rows of the file by what became of them."""

    def __init__(self, published: Sequence[PublishedCaptions], clips_of: Counter[str]) -> None:
        """Take the rows of a file, and how many clips the dataset has of each recording."""
        self.published, self.clips_of = published, clips_of
        self.rows: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(published):
            self.rows[row.youtube_id].append(index)
        self.used: set[int] = set()

    def texts(self, youtube_id: str, start_s: float) -> list[str]:
        """Return the captions of a clip, each once."""
        found: list[str] = []
        for index in self.rows.get(youtube_id, ()):
            row = self.published[index]
            alone = row.start_s is None and self.clips_of[youtube_id] == 1
            if alone or (row.start_s is not None and abs(row.start_s - start_s) <= MAX_DIFFERENCE_S):
                self.used.add(index)
                found += row.texts
        return list(dict.fromkeys(found))

    def counts(self) -> dict[str, int]:
        """Return the rows that were matched, and the others by the reason why not."""
        counts = Counter({"matched": len(self.used)})
        for index, row in enumerate(self.published):
            if index not in self.used:
                counts[self._why_not(row)] += 1
        return dict(counts)

    def _why_not(self, row: PublishedCaptions) -> str:
        if not self.clips_of[row.youtube_id]:
            return "recording not in the dataset"
        if row.start_s is None:
            return "no start, and several clips of the recording or none that was written"
        return "another part of the recording, or not written"


def run(config: ImportCaptionsConfig) -> None:
    """Write the overlay; a finished one is left alone."""
    overlays.check_name(config.name)
    plan, data = read_finished_plan(config.data), storage.resolve(config.data)
    source, published, digest = _read(config.source)
    folder = overlays.folder(data, config.name)
    identity = {"plan_hash": plan.hash, "retries": len(plan.retries), "source_sha256": digest}
    run_dir.claim(folder, config, identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    if storage.exists(marker):
        log.info("import-captions: %s is complete already", folder)
        return
    matcher = Matcher(published, _count_clips(data, plan))
    made_by = {"model": source, "revision": digest}
    clips = _write_parts(data, folder, plan, matcher, made_by)
    counts = {"clips": clips, "rows": matcher.counts()}
    marked = {"stage": "pipeline import-captions", **made_by, **identity, **counts, "score": None}
    storage.publish_json(marker, {**marked, **authorship.describe(data, config.name)})
    dataset_card.name_captioners(data)
    rows = ", ".join(f"{count:,} {reason}" for reason, count in counts["rows"].items())
    log.info("import-captions: %s: %s of %s clips got captions; rows: %s", folder, *clips.values(), rows)


def _read(source: str) -> tuple[str, list[PublishedCaptions], str]:
    """Return the URI of a file, its captions and its hash. Raises InputError for what cannot be read."""
    if not source:
        raise InputError("--source", source, "give a CSV or JSON of captions by YouTube id")
    uri, stats = storage.resolve(source), ListingStats()
    try:
        digest = hashlib.sha256(storage.read(uri)).hexdigest()
        published = list(published_captions.read(uri, stats))
    except (OSError, ListingError) as error:
        raise InputError("--source", source, str(error)) from None
    log.info("import-captions: %s: %d rows with captions; %s", uri, len(published), dict(stats.skipped))
    if not published:
        raise InputError(
            "--source", source, "no row has a YouTube id and a caption; see the columns in pipeline/README.md"
        )
    return uri, published, digest


def _count_clips(data: str, plan: Plan) -> Counter[str]:
    """Return how many clips a dataset has of each YouTube recording; a clip that was tried again counts once."""
    keys = {row["key"]: _youtube_id(row["origin"]) for shard in plan.shards for row in plan.read_shard(data, shard)}
    return Counter(keys.values())


def _write_parts(data: str, folder: str, plan: Plan, matcher: Matcher, made_by: dict[str, str]) -> dict[str, int]:
    """Publish a part for each shard; return how many written clips got captions, and how many there are."""
    matched = total = 0
    for shard, written in ledgers.written(data, plan.shards):
        places = {row["key"]: (_youtube_id(row["origin"]), row["start_s"]) for row in plan.read_shard(data, shard)}
        rows = [_row(key, matcher.texts(*places[key]), made_by) for key in written["key"].to_pylist()]
        part = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
        storage.publish_table(storage.join(folder, shards.ledger_name(shard)), part)
        matched, total = matched + sum(bool(row["text"]) for row in rows), total + len(rows)
    return {"matched": matched, "written": total}


def _row(key: str, texts: list[str], made_by: dict[str, str]) -> overlays.CaptionsRow:
    records: list[shards.CaptionRecord] = [
        {
            "text": text,
            "score": None,
            "model": made_by["model"].rpartition("/")[2],
            "revision": made_by["revision"],
            "decoding": "published",
            "precision": "",
            "tags_given": False,
        }
        for text in texts
    ]
    return {
        "key": key,
        "text": texts,
        "score": [None] * len(texts),
        "captions": json.dumps(records, ensure_ascii=False),
    }


def _youtube_id(origin: str | None) -> str:
    return (origin or "").removeprefix(YOUTUBE) if (origin or "").startswith(YOUTUBE) else ""
