"""Score captions with a language-audio model: `python -m pipeline score <config>`.

Writes an overlay: for every clip its captions, best first, with the cosine of audio and text. Audio shards stay as they
are. Round 2 of the loop trains on such an overlay; where to cut by score is the trainer's choice.
"""

import dataclasses
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import authorship, overlays, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.graph.engine import ActorConfig
from pipeline.progress import Progress

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo
    from train.models.configs import TowersConfig

log = logging.getLogger(__name__)
DECODERS = 2


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Score the captions of a dataset of shards with a two-tower model."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    model: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Checkpoint directory that `train pretrain` wrote; or `hf:` and a CLAP of transformers, a folder or a name on the
    hub."""
    name: str = ""
    """Name of the overlay, such as round1; becomes <data>/overlays/<name>."""
    captions: str = ""
    """Overlay whose captions to score, such as one that `pipeline recaption` wrote; empty takes the shards' own."""
    batch_size: int = field(default=64, metadata=run_dir.NOT_IDENTITY)
    """Clips in one pass of the model."""
    actors: ActorConfig = field(default_factory=ActorConfig, metadata=run_dir.NOT_IDENTITY)
    """The pool of scoring actors."""


def run(config: ScoreConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    from train import checkpoint  # here, so that --help starts without it

    index, checkpoint_info = _check(config)
    folder = overlays.folder(config.data, config.name)
    run_dir.claim(folder, config, identity={"revision": checkpoint_info.revision}, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    done = set(storage.list_names(folder))
    todo = [shard for shard in index.shards if shards.ledger_name(shard) not in done]
    if not todo and storage.exists(marker):
        log.info("score: %s is complete already", folder)
        return
    model = checkpoint.resolve(config.model)
    _fill(dataclasses.replace(config, model=model), index.data, folder, todo)
    scores = np.array(_best_scores(folder))
    quantiles = {f"p{q}": round(float(np.percentile(scores, q)), 4) for q in (5, 25, 50, 75, 95)}
    made_by = {"stage": authorship.SCORES, "model": model, "revision": checkpoint_info.revision}
    scored = _scored(index, config.captions, folder)
    storage.publish_json(marker, {**made_by, **scored, "num_clips": len(scores), "best_score": quantiles})
    log.info("score: %s: %d clips, best scores %s", folder, len(scores), quantiles)


class Scorer:
    """The actor: holds the model and scores one shard at a time."""

    def __init__(self, config: ScoreConfig, data: str, folder: str) -> None:
        from train import checkpoint  # here, so that --help and the driver's checks start without torch

        self.config, self.folder, self.data = config, folder, data
        self.device = config.actors.torch_device()
        self.model = checkpoint.load(config.model).model.to(self.device)
        self.decoders = ThreadPoolExecutor(DECODERS)
        self.model_lock = threading.Lock()  # one batch at a time on the model; Ray calls from two threads

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score one shard and publish its part of the overlay."""
        (shard,) = batch["shard"].to_pylist()
        tar = storage.read(storage.join(self.data, shards.tar_name(shard)))
        rows = [row for row in overlays.read_clips(self.data, shard, self.config.captions) if row["text"]]
        records = overlays.read_part(self.data, self.config.captions, shard) if self.config.captions else {}
        parts = [
            self._score(rows[i : i + self.config.batch_size], tar, records)
            for i in range(0, len(rows), self.config.batch_size)
        ]
        table = pa.Table.from_pylist([row for part in parts for row in part], schema=overlays.CAPTIONS_SCHEMA)
        table = table.replace_schema_metadata({authorship.DIGEST: authorship.digest(rows)})
        storage.publish_table(storage.join(self.folder, shards.ledger_name(shard)), table)
        return pa.table({"shard": [shard], "clips": [len(rows)]})

    def _score(
        self, rows: list[shards.ClipRow], tar: bytes, records: Mapping[str, overlays.CaptionsRow]
    ) -> list[overlays.CaptionsRow]:
        flacs = [shards.member(tar, row, "flac") for row in rows]
        decoded = list(self.decoders.map(audio.decode, flacs))
        texts = [text for row in rows for text in row["text"]]
        clip_index = [i for i, row in enumerate(rows) for _ in row["text"]]
        with self.model_lock:
            clips = self.model.embed_clips(decoded, audio.SAMPLE_RATE_HZ)
            cosines = (clips[clip_index] * self.model.embed_texts(texts)).sum(dim=1).tolist()
        scored: list[list[tuple[float, str]]] = [[] for _ in rows]
        for i, text, cosine in zip(clip_index, texts, cosines, strict=True):
            scored[i].append((cosine, text))
        return [
            {
                "key": row["key"],
                "text": [text for _, text in best],
                "score": [score for score, _ in best],
                "captions": records[row["key"]]["captions"] if records else None,  # which are found by their texts
            }
            for row, best in zip(rows, map(_best_first, scored), strict=True)
        ]


def _best_first(scored: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Sort captions by their cosines; those with one cosine stay in the order in which they were made."""
    return sorted(scored, key=lambda pair: -pair[0])


def _check(config: ScoreConfig) -> tuple[ClipIndex, "CheckpointInfo[TowersConfig]"]:
    from train import checkpoint

    checkpoint_info = checkpoint.describe(config.model, "--model", "clap")
    overlays.check_name(config.name)
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a finished `python -m pipeline caption`")
    overlays.check_exists(config.data, config.captions)
    try:
        return ClipIndex(config.data), checkpoint_info
    except FileNotFoundError as error:
        raise InputError("--data", config.data, str(error)) from None


def _fill(config: ScoreConfig, data: str, folder: str, todo: list[int]) -> None:
    progress = Progress("score", "shards", len(todo))
    scorers = engine.Actors(Scorer, (config, data, folder), config.actors)
    for row in engine.rows(todo, scorers, in_process=config.actors.in_process):
        progress.add(1, f"{row['clips']} clips in the last")


def _scored(index: ClipIndex, captions: str, folder: str) -> dict[str, Any]:
    """Return which captions were scored: their overlay, who wrote them, and their hash, but for parts of before it was."""
    scored = {"captions": captions, "scored": authorship.origin(index.data, captions or authorship.OWN)}
    digests: dict[int, str] = {}
    for shard in index.shards:
        with storage.open_parquet(storage.join(folder, shards.ledger_name(shard))) as file:
            metadata = file.schema_arrow.metadata or {}
        if (digest := metadata.get(authorship.DIGEST.encode())) is None:
            return scored
        digests[shard] = digest.decode()
    return {**scored, authorship.DIGEST: authorship.joined(digests)}


def _best_scores(folder: str) -> list[float]:
    """Return the score of the best caption of every clip that has captions."""
    parts = [name for name in storage.list_names(folder) if name.endswith(".parquet")]
    scores = (each for part in parts for each in storage.read_table(storage.join(folder, part))["score"].to_pylist())
    return [each[0] for each in scores if each]
