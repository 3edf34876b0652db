"""Check the captions of a dataset without a model: `python -m pipeline audit --data <dataset> --name <overlay>`.

Writes an overlay of verdicts: events that a caption mentions outside the clip's tags, tags it leaves out, its length,
how many clips share it, and which clips have the audio of an earlier one. Nothing is deleted: thresholds are chosen for
training or export.
"""

import hashlib
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import ledgers, overlays, shards
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.graph.finalize import read_finished_plan
from pipeline.planning.plan import Plan
from pipeline.progress import Progress
from pipeline.quality.tag_consistency import Lexicon, normalise
from pipeline.sources import audioset

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Check the captions of a dataset of shards by their length, against their clips' tags and against each other."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as audit; becomes <data>/overlays/<name>."""
    captions: str = ""
    """Overlay whose captions to check; empty takes the shards' own."""
    labels: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Folder with AudioSet's class_labels_indices.csv and ontology.json; empty looks beside the dataset's source.
    Without the first the vocabulary is the dataset's own tags, without the second a tag's only relative is itself."""
    in_process: bool = field(default=False, metadata=run_dir.NOT_IDENTITY)
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


def run(config: AuditConfig) -> None:
    """Write the overlay, part by part; existing parts are skipped."""
    plan = read_finished_plan(config.data)
    data = storage.resolve(config.data)
    overlays.check_name(config.name)
    overlays.check_exists(data, config.captions)
    vocabulary = _read_vocabulary(config, data, plan)
    folder = overlays.folder(data, config.name)
    identity = {"plan_hash": plan.hash, "retries": len(plan.retries), "vocabulary": vocabulary.revision()}
    run_dir.claim(folder, config, identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    if storage.exists(marker):
        log.info("audit: %s is complete already", folder)
        return
    numbers = plan.shards
    repeats = _Repeats(data, config.captions, numbers)
    done = set(storage.list_names(folder))
    todo = [shard for shard in numbers if shards.ledger_name(shard) not in done]
    if todo:
        task = partial(check, data=data, captions=config.captions, out=folder, vocabulary=vocabulary, repeats=repeats)
        progress = Progress("audit", "clips")
        for row in engine.rows(todo, engine.Tasks(task), in_process=config.in_process):
            progress.add(row["clips"])
    storage.publish_json(
        marker, {"stage": "pipeline audit", "captions": config.captions, **identity, **_summary(folder)}
    )
    log.info("audit: %s: %s", folder, _summary(folder))


class _Vocabulary(NamedTuple):
    """The labels that captions are compared with."""

    names: tuple[tuple[str, str], ...]  # (id, display name)
    children: tuple[tuple[str, tuple[str, ...]], ...]  # (id, ids of its children in the ontology); empty without one

    def revision(self) -> str:
        """Return a hash, which does not depend on the order of the files."""
        return hashlib.sha256(repr((sorted(self.names), sorted(self.children))).encode()).hexdigest()


class _Repeats:
    """Hashes over the whole dataset: how often each caption is used, and which clip was the first with each audio."""

    def __init__(self, data: str, captions: str, numbers: Sequence[int]) -> None:
        texts, audio, keys = array("q"), array("q"), array("q")
        for ledger in ledgers.read(data, numbers):
            rows = [row for row in ledger.to_pylist() if row["status"] == "written"]
            if not captions:
                texts.extend(_hash(normalise(text)) for row in rows for text in set(row["text"]))
            audio.extend(_hash(row["sha256"]) for row in rows)
            keys.extend(_hash(row["key"]) for row in rows)
        if captions:
            overlay = overlays.read_rows(data, captions)
            texts.extend(_hash(normalise(text)) for row in overlay for text in set(row["text"]))
        self.texts, self.uses = np.unique(np.array(texts, np.int64), return_counts=True)
        self.audio, first = np.unique(np.array(audio, np.int64), return_index=True)
        self.first_keys = np.array(keys, np.int64)[first]  # of the clip that was the first with each audio

    def num_uses(self, text: str) -> int:
        return int(self.uses[np.searchsorted(self.texts, _hash(normalise(text)))])

    def is_copy(self, key: str, sha256: str) -> bool:
        return bool(self.first_keys[np.searchsorted(self.audio, _hash(sha256))] != _hash(key))


def check(batch: pa.Table, data: str, captions: str, out: str, vocabulary: _Vocabulary, repeats: _Repeats) -> pa.Table:
    """Check the captions of one shard and publish its part of the overlay."""
    (shard,) = batch["shard"].to_pylist()
    rows = overlays.read_clips(data, shard, captions)
    lexicon = _lexicon(vocabulary)
    table = pa.Table.from_pylist([_audit_row(row, lexicon, repeats) for row in rows], schema=overlays.AUDIT_SCHEMA)
    storage.publish_table(storage.join(out, shards.ledger_name(shard)), table)
    return pa.table({"shard": [shard], "clips": [len(rows)]})


def _audit_row(row: shards.ClipRow, lexicon: Lexicon, repeats: _Repeats) -> overlays.AuditRow:
    verdicts = [lexicon.audit(text, row["tags"]) for text in row["text"]]
    return {
        "key": row["key"],
        "text": row["text"],
        "words": [verdict.num_words for verdict in verdicts],
        "foreign": [verdict.hallucinated_events for verdict in verdicts],
        "unmentioned": [verdict.omitted_tags for verdict in verdicts],
        "uses": [repeats.num_uses(text) for text in row["text"]],
        "copy": repeats.is_copy(row["key"], row["sha256"]),
    }


def _hash(text: str) -> int:
    """Return 63 bits of a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@lru_cache(maxsize=1)
def _lexicon(vocabulary: _Vocabulary) -> Lexicon:
    return Lexicon(dict(vocabulary.names), dict(vocabulary.children))


def _read_vocabulary(config: AuditConfig, data: str, plan: Plan) -> _Vocabulary:
    """Read AudioSet's labels and ontology; without the labels, the names are the dataset's own tags."""
    source = storage.read_json(storage.join(data, run_dir.RUN_FILE))["source"]
    folder = storage.resolve(config.labels) if config.labels else source.rpartition("/")[0]
    labels = storage.join(folder, audioset.LABELS_FILE)
    ontology = storage.join(folder, audioset.ONTOLOGY_FILE)
    has_labels, has_ontology = storage.exists(labels), storage.exists(ontology)
    if config.labels and not has_labels:
        raise InputError("--labels", config.labels, f"holds no {audioset.LABELS_FILE}")
    names = audioset.read_labels(storage.read(labels).decode()) if has_labels else {tag: tag for tag in plan.tags}
    children = audioset.read_ontology(storage.read_text(ontology)) if has_ontology else {}
    relatives = "with ontology" if children else "no ontology: only equal tags are relatives"
    log.info("audit: %d names, %s", len(names), relatives)
    return _Vocabulary(tuple(names.items()), tuple(children.items()))


def _summary(folder: str) -> dict[str, int]:
    """Count the verdicts of an overlay."""
    counts = dict.fromkeys(("num_clips", "num_captions", "with_foreign_events", "with_unmentioned_tags", "copies"), 0)
    for name in storage.list_names(folder):
        if name.endswith(".parquet"):
            rows: list[overlays.AuditRow] = storage.read_table(storage.join(folder, name)).to_pylist()
            counts["num_clips"] += len(rows)
            for row in rows:
                counts["num_captions"] += len(row["text"])
                counts["with_foreign_events"] += sum(bool(events) for events in row["foreign"])
                counts["with_unmentioned_tags"] += sum(bool(tags) for tags in row["unmentioned"])
                counts["copies"] += row["copy"]
    return counts
