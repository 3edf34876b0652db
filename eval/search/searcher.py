"""Queries by text, by sound or by an indexed clip -> ranked clips of an index."""

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.embedding import evaluation, in_process
from eval.search import index as index_files
from eval.search.index import IndexInfo
from eval.search.query import Query, check, check_tags
from pipeline import audio, sources
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import AudioLocation
from train import checkpoint
from train.models.clap import TwoTowers

FUSED = 100  # results of each kind that hybrid ranks, where fewer are asked for
HIT_COLUMNS = ("id", "key", "captions", "tags", "duration_s", "source_id", "data", "uri", "offset", "size")
SCORES = {"embedding": "_distance", "words": "_score", "hybrid": "_relevance_score"}


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A clip that was found, and where it lies."""

    id: str
    """Hash of the dataset and the key, hexadecimal: the same in every index of the dataset."""
    key: str
    score: float
    """Cosine, BM25 or the sum of reciprocal ranks, by the query's mode; 1 of a clip that was asked for by its id."""
    captions: tuple[str, ...]
    """Best first."""
    tags: tuple[str, ...]
    duration_s: float
    source_id: str
    """The id as the source wrote it."""
    data: str
    """Folder or URI of the dataset."""
    uri: str
    """File or URI that holds the audio."""
    offset: int
    """Of the audio in the file, bytes; its row in a Parquet file, where `size` is -1."""
    size: int
    """Of the audio in the file, bytes; -1 for the whole file of a store."""


class Searcher:
    """An index and the model that its vectors are of. Threads may share it."""

    def __init__(self, index: str, model: str = "", device: str = "cpu") -> None:
        """Open an index as it is now. The model is loaded when the first query needs it.

        Args:
            index: the --out of `python -m eval index-search`.
            model: the checkpoint that made the vectors, where it is no longer where the index names it.
            device: where it embeds queries.

        Raises:
            InputError: when there is no finished index or no checkpoint, or the checkpoint is another one.
        """
        self._info = index_files.read_info(index)
        self._table = index_files.open_table(self._info.uri)
        self._model_uri, self._device = model or self._info.model, device
        in_process.device(device)
        revision = checkpoint.describe(self._model_uri, "--model", "clap").revision
        if revision != self._info.revision:
            remedy = f"has revision {revision[:12]}, the index is of {self._info.revision[:12]}; give that checkpoint"
            raise InputError("--model", self._model_uri, remedy)
        self._lock = threading.Lock()  # of the model: tokenizers refuse two threads at once

    @property
    def info(self) -> IndexInfo:
        """Return what the index states now; what it stated before while it cannot be read."""
        with contextlib.suppress(InputError):
            self._info = index_files.read_info(self._info.uri)
        return self._info

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the model's audio, Hz."""
        with self._lock:
            return self._model.sample_rate_hz

    def search(self, query: Query) -> list[Hit]:
        """Return the clips that match best, best first; clips with equal scores are in the order of their ids.

        Raises:
            InputError: when the query asks for nothing, for too much, or for a tag or a clip that the index lacks.
        """
        check(query)
        if query.tags or query.without_tags:
            check_tags(query, self._tags)
        vector = None if query.mode == "words" else self._vector(query)
        depth = max(query.k, FUSED) if query.mode == "hybrid" else query.k
        found = self._found(query, vector)
        if where := query.where:
            is_words = query.mode == "words"
            found = found.where(where, prefilter=True) if is_words else index_files.narrow(self._table, found, where)
        score = SCORES[query.mode]
        columns = list(HIT_COLUMNS) if query.mode == "hybrid" else [*HIT_COLUMNS, score]
        rows = found.select(columns).limit(depth).to_list()
        sign = -1 if query.mode == "embedding" else 1
        hits = [_hit(row, (query.mode == "embedding") + sign * row[score]) for row in rows]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[: query.k]

    def clip(self, id: str) -> Hit:
        """Return an indexed clip. Raises KeyError when there is none of this id."""
        return _hit(self._row(id, HIT_COLUMNS), 1.0)

    def location(self, id: str) -> AudioLocation:
        """Return where the audio of a clip lies. Raises KeyError when there is none of this id."""
        return AudioLocation(**self._row(id, ("uri", "offset", "size", "cut_start_s", "cut_end_s")))

    def audio(self, id: str) -> bytes:
        """Return the audio of a clip: of a shard its FLAC by a range read of the tar, of a file its bytes as they are, of a
        part of a recording FLAC.

        Raises:
            KeyError: when there is no clip of this id.
            JobError: when the audio has gone or cannot be read.
        """
        location = self.location(id)
        try:
            if location.whole:
                return sources.read_bytes(*location[:3])
            return audio.encode_flac(sources.read_alone(location))
        except audio.AudioError as error:
            raise JobError(f"the audio of clip {id} cannot be read: {error.reason}") from error

    def tags(self) -> list[tuple[str, int]]:
        """Return the tags of the clips and how many clips have each, most frequent first."""
        return list(self._tags.items())

    @property
    def _tags(self) -> Mapping[str, int]:
        return self._tags_of(self._table.version)

    @functools.lru_cache(maxsize=1)  # noqa: B019  # a server holds one searcher as long as it lives
    def _tags_of(self, version: int) -> Mapping[str, int]:
        """Return the tags of a version of the table; each change of the index makes a new one."""
        counts: Counter[str] = Counter()
        for batch in self._table.search().select(["tags"]).to_batches(8192):
            counts.update(batch.column(0).flatten().to_pylist())
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @functools.cached_property
    def _model(self) -> TwoTowers:
        model: TwoTowers = evaluation.load(self._model_uri, "--model", self._device).model
        return model

    def _found(self, query: Query, vector: np.ndarray | None) -> Any:
        """Return LanceDB's query, without filter and limit."""
        if query.mode == "words":
            return self._table.search(query.text, query_type="fts", fts_columns="captions")
        if query.mode == "embedding":
            return index_files.nearest(self._table.search(vector, vector_column_name="vector"))
        from lancedb.rerankers import RRFReranker

        hybrid = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="captions")
        return index_files.nearest(hybrid.vector(vector).text(query.text)).rerank(RRFReranker())

    def _vector(self, query: Query) -> np.ndarray:
        """Return the unit vector of a query, float32 (D,)."""
        parts = []
        with self._lock:
            if query.has_text:
                parts.append(in_process.embed_text(self._model, [query.text])[0])
            if query.samples is not None:
                parts.append(self._model.embed_clips([query.samples])[0].cpu().numpy())
        if query.like:
            try:
                parts.append(np.array(self._row(query.like, ("vector",))["vector"], np.float32))
            except KeyError:
                raise InputError("--like", query.like, "the index has no clip of this id") from None
        if len(parts) == 1:
            return np.asarray(parts[0])
        mixed = query.text_weight * parts[0] + (1 - query.text_weight) * parts[1]
        return np.asarray(mixed / max(np.linalg.norm(mixed), 1e-7), np.float32)

    def _row(self, id: str, columns: tuple[str, ...]) -> dict[str, Any]:
        if not index_files.ID.fullmatch(id):
            raise KeyError(id)
        rows = self._table.search().where(f"id = {index_files.quoted(id)}").select(list(columns)).limit(1).to_list()
        if not rows:
            raise KeyError(id)
        return dict(rows[0])


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    return Hit(
        id=row["id"],
        key=row["key"],
        score=float(score),
        captions=tuple(row["captions"]),
        tags=tuple(row["tags"]),
        duration_s=row["duration_s"],
        source_id=row["source_id"],
        data=row["data"],
        uri=row["uri"],
        offset=max(row["offset"], 0),
        size=row["size"],
    )
