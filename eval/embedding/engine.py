"""Ray for this room: clips through Ray Data actors, and folds as tasks; the only file here that knows Ray."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from eval.embedding import actor
from eval.embedding.actor import EmbeddingActor
from eval.embedding.view import View
from pipeline import ray_noise
from pipeline.errors import InputError

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Made = TypeVar("Made")
READ_CPUS = 1.0
READ_MEMORY = 512 * 2**20  # bytes of a reading task; as it asks for other things than an actor, Ray keeps them apart


def embed_clips(
    places: pa.Table, model_uri: str, sample_rate_hz: int, batch_size: int, workers: int, gpus: float, view: View
) -> Iterator[pa.Table]:
    """Yield the rows of `Listener` for clips, in any order: tasks read and decode, actors that hold the model embed.

    Raises:
        InputError: when GPUs are asked for, and there is none and no cluster that could bring some up.
    """
    import ray.data

    _connect()
    if gpus > 0 and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
        raise InputError("--gpus-per-worker", gpus, "there is no GPU here; use 0, or run it as a job on a cluster")
    data = ray.data.from_arrow([places.slice(i, batch_size) for i in range(0, len(places), batch_size)])
    embedded = data.map_batches(
        actor.read,  # type: ignore[arg-type]
        fn_kwargs={"sample_rate_hz": sample_rate_hz, "view": view},
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=READ_CPUS,
        memory=READ_MEMORY,
    ).map_batches(
        EmbeddingActor,
        fn_constructor_args=(model_uri, "cuda" if gpus > 0 else "cpu"),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=0.0 if gpus > 0 else 1.0,
        num_gpus=gpus,
    )
    for batch in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield pa.table(batch)


def map_tasks(
    function: Callable[[Item, Shared], Made], items: Sequence[Item], shared: Shared, workers: int, cpus: float = 1.0
) -> Iterable[Made]:
    """Return what a function makes of items, in their order.

    Args:
        function: called with an item and what all items share.
        items: such as folds.
        shared: sent once.
        workers: Ray tasks at a time; 0 works in this process.
        cpus: cores that Ray sets aside for each.
    """
    if not workers:
        return [function(item, shared) for item in items]
    import ray

    _connect()
    task, held = ray.remote(function), ray.put(shared)
    waiting: list[Any] = []
    for item in items:
        if len(waiting) >= workers:
            ray.wait(waiting, num_returns=len(waiting) - workers + 1)
        waiting.append(task.options(num_cpus=cpus).remote(item, held))
    made: list[Made] = ray.get(waiting)
    return made


def _connect() -> None:
    import ray

    ray_noise.hide()
    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets INFO; our own lines show the progress
