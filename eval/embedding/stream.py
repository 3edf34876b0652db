"""The places of clips -> rows of embeddings as they are made, in this process or by Ray Data actors."""

from collections.abc import Iterator

import pyarrow as pa

from eval.embedding import actor, engine
from eval.embedding.actor import EmbeddingActor
from eval.embedding.evaluation import ComputeConfig
from eval.embedding.view import AS_IT_IS, View
from train import checkpoint
from train.checkpoint import Checkpoint


def stream(config: ComputeConfig, loaded: Checkpoint, places: pa.Table, view: View = AS_IT_IS) -> Iterator[pa.Table]:
    """Yield the rows of `EmbeddingActor` for clips, given their LOCATION_COLUMNS; actors give them in any order."""
    rate_hz, size = loaded.model.sample_rate_hz, config.batch_size
    if config.workers:
        uri = checkpoint.resolve(config.model)
        yield from engine.embed_clips(places, uri, rate_hz, size, config.workers, config.gpus_per_worker, view)
        return
    model = EmbeddingActor(loaded.model, config.device)
    for first in range(0, len(places), size):
        yield model(actor.read(places.slice(first, size), rate_hz, view))
