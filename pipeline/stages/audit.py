"""Judge the captions of a dataset without a model: `python -m pipeline audit --data <dataset> --name <overlay>`.

Writes an overlay of verdicts: events that a caption mentions outside the clip's tags, tags it leaves out, its length,
how many clips share it, and which clips have the audio of an earlier one. Nothing is deleted; thresholds belong to
whoever trains or exports.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import ledgers, shards
from pipeline.errors import InputError
from pipeline.graph import engine, job_stats
from pipeline.planning import plan
from pipeline.progress import Progress
from pipeline.quality.tag_consistency import Lexicon, normalise
from pipeline.sources import audioset

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Judge the captions of a dataset of shards by their words, their clips' tags and each other."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the overlay, such as audit; becomes <data>/overlays/<name>."""
    captions: str = ""
    """Overlay whose captions to judge; empty takes the shards' own."""
    labels: str = ""
    """Folder with AudioSet's class_labels_indices.csv and ontology.json; empty looks beside the dataset's source.
    Without the first the vocabulary is the dataset's own tags, without the second a tag's only relative is itself."""
    in_process: bool = False
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


def run(config: AuditConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    planned = job_stats.whole(config.data)
    data = storage.resolve(config.data)
    shards.check_overlay_name(config.name)
    shards.check_captions(data, config.captions)
    names, children, origin = _vocabulary(config, data, planned)
    folder = shards.overlay_folder(data, config.name)
    identity = {"plan_hash": planned["hash"], "retries": len(planned["retries"]), "vocabulary": origin}
    run_dir.claim(folder, config, identity, ignore=("data", "labels", "in_process"), flag="--name")
    marker = storage.join(folder, shards.OVERLAY_FILE)
    if storage.exists(marker):
        log.info("audit: %s is complete already", folder)
        return
    numbers = range(plan.num_shards(planned))
    known = _Known(data, config.captions, numbers)
    done = set(storage.list_names(folder))
    todo = [shard for shard in numbers if shards.ledger_name(shard) not in done]
    if todo:
        task = partial(
            judge, data=data, captions=config.captions, out=folder, vocabulary=(names, children), known=known
        )
        progress = Progress("audit", "clips")
        for row in engine.rows(todo, engine.Tasks(task), in_process=config.in_process):
            progress.add(row["clips"])
    storage.publish_json(
        marker, {"stage": "pipeline audit", "captions": config.captions, **identity, **_summary(folder)}
    )
    log.info("audit: %s: %s", folder, _summary(folder))


class _Known:
    """Hashes over the whole dataset: how often each caption is used, and which clip had each audio first."""

    def __init__(self, data: str, captions: str, numbers: Sequence[int]) -> None:
        texts: list[int] = []
        audio: list[int] = []
        owners: list[int] = []
        for ledger in ledgers.read(data, numbers):
            rows = [row for row in ledger.to_pylist() if row["status"] == "written"]
            texts += [_hash(normalise(text)) for row in rows for text in set(row["text"])]
            audio += [_hash(row["sha256"]) for row in rows]
            owners += [_hash(row["key"]) for row in rows]
        if captions:
            told, _ = shards.read_overlay(data, captions)
            texts = [_hash(normalise(text)) for row in told.values() for text in set(row["text"])]
        self.texts, self.uses = np.unique(np.array(texts, np.int64), return_counts=True)
        self.audio, first = np.unique(np.array(audio, np.int64), return_index=True)
        self.owners = np.array(owners, np.int64)[first]

    def times_used(self, text: str) -> int:
        return int(self.uses[np.searchsorted(self.texts, _hash(normalise(text)))])

    def is_copy(self, key: str, sha256: str) -> bool:
        return bool(self.owners[np.searchsorted(self.audio, _hash(sha256))] != _hash(key))


def judge(
    batch: pa.Table,
    data: str,
    captions: str,
    out: str,
    vocabulary: tuple[dict[str, str], dict[str, Any]],
    known: _Known,
) -> pa.Table:
    """Judge the captions of one shard and publish its part of the overlay."""
    (shard,) = batch["shard"].to_pylist()
    rows = shards.read_rows(data, shard, captions)
    lexicon = _lexicon(tuple(vocabulary[0].items()), tuple((k, tuple(v)) for k, v in vocabulary[1].items()))
    table = pa.Table.from_pylist([_verdicts(row, lexicon, known) for row in rows], schema=shards.AUDIT)
    storage.publish_table(storage.join(out, shards.ledger_name(shard)), table)
    return pa.table({"shard": [shard], "clips": [len(rows)]})


def _verdicts(row: dict[str, Any], lexicon: Lexicon, known: _Known) -> dict[str, Any]:
    found = [lexicon.audit(text, row["tags"]) for text in row["text"]]
    return {
        "key": row["key"],
        "text": row["text"],
        "words": [verdict.num_words for verdict in found],
        "foreign": [verdict.foreign for verdict in found],
        "unmentioned": [verdict.unmentioned for verdict in found],
        "uses": [known.times_used(text) for text in row["text"]],
        "copy": known.is_copy(row["key"], row["sha256"]),
    }


def _hash(text: str) -> int:
    """Return 63 bits of a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@lru_cache(maxsize=1)
def _lexicon(names: tuple[tuple[str, str], ...], children: tuple[tuple[str, tuple[str, ...]], ...]) -> Lexicon:
    return Lexicon(dict(names), dict(children) or None)


def _vocabulary(
    config: AuditConfig, data: str, planned: dict[str, Any]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], str]:
    """Return display names by id, the ontology's children by id, and a hash of both."""
    source = storage.read_json(storage.join(data, run_dir.RUN_FILE))["source"]
    folder = storage.resolve(config.labels) if config.labels else source.rpartition("/")[0]
    labels = storage.join(folder, audioset.LABELS_FILE)
    ontology = storage.join(folder, audioset.ONTOLOGY_FILE)
    if config.labels and not storage.exists(labels):
        raise InputError("--labels", config.labels, f"holds no {audioset.LABELS_FILE}")
    own = {tag: tag for tag in planned["tags"]}
    names = audioset.read_labels(storage.read(labels).decode()) if storage.exists(labels) else own
    children = audioset.read_ontology(storage.read_text(ontology)) if storage.exists(ontology) else {}
    log.info(
        "audit: %d names, %s", len(names), "with ontology" if children else "no ontology: only equal tags are relatives"
    )
    return (
        names,
        dict(children),
        hashlib.sha256(repr((sorted(names.items()), sorted(children.items()))).encode()).hexdigest(),
    )


def _summary(folder: str) -> dict[str, Any]:
    """Count the verdicts of an overlay."""
    captions = foreign = silent = copies = clips = 0
    for name in storage.list_names(folder):
        if name.endswith(".parquet"):
            for row in storage.read_table(storage.join(folder, name)).to_pylist():
                clips += 1
                captions += len(row["text"])
                foreign += sum(bool(events) for events in row["foreign"])
                silent += sum(bool(tags) for tags in row["unmentioned"])
                copies += row["copy"]
    return {
        "num_clips": clips,
        "num_captions": captions,
        "with_foreign_events": foreign,
        "with_unmentioned_tags": silent,
        "copies": copies,
    }
