"""What `pipeline doctor` asks of Ray beside the engine: the size of the cluster, one object in its store, its timeline.

Without Ray these are this machine, the object itself, and nothing.
"""

import os
import time
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.graph import engine

Held = list[Any]  # of one table or one reference: Ray resolves a bare reference before a task starts, and this one not
EVENTS_S = 3.0  # in which workers send what they noted to the head


class Hardware(NamedTuple):
    """Where a job runs. Nodes that an autoscaler would add are not counted."""

    nodes: int
    cores: float
    gpus: float


def start(in_process: bool) -> float:
    """Start the engine; return the seconds until a first task is done."""
    began = time.monotonic()
    engine.run_single(_answer, in_process=in_process)
    return time.monotonic() - began


def _answer() -> None:
    """Do nothing: the time until it is done is that of the engine."""


def hardware(in_process: bool) -> Hardware:
    """Return what a started engine has."""
    if in_process:
        import torch

        return Hardware(1, float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count()))
    import ray

    found = ray.cluster_resources()
    return Hardware(sum(node["Alive"] for node in ray.nodes()), found.get("CPU", 0.0), found.get("GPU", 0.0))


def hold(table: pa.Table, in_process: bool) -> Held:
    """Put a table where a task of any node can `fetch` it."""
    if in_process:
        return [table]
    import ray

    return [ray.put(table)]


def fetch(held: Held) -> pa.Table:
    """Return a table that is held, from another node if it is there."""
    if isinstance(held[0], pa.Table):
        return held[0]
    import ray

    return ray.get(held[0])


def timeline() -> list[dict[str, Any]]:
    """Return what the tasks and actors of this Ray did so far, as events of a trace for Perfetto."""
    import ray

    time.sleep(EVENTS_S)
    events: list[dict[str, Any]] = ray.timeline()
    return events
