"""How much work a clip of a caption job is, and which pool is the slowest with given flags. Plain arithmetic.

A job is a line of pools that work side by side: cores, tasks that wait for the store, actors, GPUs, the network, the driver.
The load of a pool is the seconds that it needs for one clip; the pool with the largest load sets the rate of the job.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.planning.capacity import DRIVER_SHARDS_PER_S, TASKS_PER_CORE, WAVEFORM_BYTES_PER_S

STEP_THREADS = 2  # shards that a step works on at a time in one process: engine.CONCURRENT
ACTOR_DECODERS = 2  # caption_actor.DECODERS
Decode = Literal["reader", "actor"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one clip takes, seconds."""

    core_s: float
    """In which a core works."""
    wall_s: float
    """From begin to end, of the one task, actor or thread that does it."""


@dataclass(frozen=True, kw_only=True)
class BatchRate:
    """One actor with one batch size; seconds are those of one clip."""

    core_s: float
    wall_s: float
    model_s: float
    """In which the model is busy."""
    gpu_s: float = 0.0
    """In which the GPU computes; 0 on a CPU, or where it was not measured."""
    memory_share: float = 0.0
    """Of a GPU's memory, that the actor takes."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one clip takes in each stage."""

    fetch: Work
    decode: Work
    encode: Work
    read: Work
    """The whole reading task, the three above included."""
    write: Work
    batches: Mapping[int, BatchRate]
    """By batch size."""
    transfer_s: float
    """Seconds in which the samples of a clip travel to an actor."""
    duration_s: float
    flac_bytes: float
    clips_per_shard: int
    start_s: float
    """Until the first actor works."""

    @classmethod
    def from_rates(cls, rates: Mapping[str, Any]) -> "Measured":
        """Return what rates.json holds. Raises KeyError for one that `pipeline probe` wrote."""
        parts = {name: Work(**part) for name, part in rates["parts"].items()}
        whole = {
            stage: Work(
                core_s=rates[stage]["cpu_s"] / rates[stage]["clips"],
                wall_s=rates[stage]["wall_s"] / rates[stage]["clips"],
            )
            for stage in ("read", "write")
        }
        return cls(
            **parts,
            **whole,
            batches={int(size): BatchRate(**rate) for size, rate in rates["batches"].items()},
            transfer_s=rates["transfer_s"],
            duration_s=rates["clip"]["duration_s"],
            flac_bytes=rates["clip"]["flac_bytes"],
            clips_per_shard=rates["about"]["clips_per_shard"],
            start_s=rates["startup"]["connect_s"] + rates["startup"]["actor_s"],
        )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where a job runs, and the flags that advice may change."""

    nodes: int
    cores: float
    gpus: float
    in_process: bool
    actors: int
    """--actors.max; 1 in process."""
    actor_gpus: float
    actor_cpus: float
    batch_size: int
    decode: Decode

    @property
    def placed(self) -> int:
        """Return how many actors there is room for."""
        if self.in_process:
            return 1
        room = self.gpus / self.actor_gpus if self.actor_gpus else (self.cores - 1 / TASKS_PER_CORE) / self.actor_cpus
        return max(1, min(self.actors, math.floor(room + 1e-6)))

    @property
    def gpus_used(self) -> float:
        """Return how many GPUs the actors hold."""
        return self.placed * self.actor_gpus

    def flags_to(self, other: "Setup") -> str:
        """Return the flags that make this setup the other one."""
        flags = {
            "--actors.max": (0 if self.in_process else self.actors, 0 if other.in_process else other.actors),
            "--actors.gpus": (self.actor_gpus, other.actor_gpus),
            "--batch-size": (self.batch_size, other.batch_size),
            "--decode": (self.decode, other.decode),
        }
        return " ".join(
            f"{flag} {now:g}" if isinstance(now, (int, float)) else f"{flag} {now}"
            for flag, (before, now) in flags.items()
            if before != now
        )


def loads(measured: Measured, setup: Setup) -> dict[str, float]:
    """Return the seconds that each pool needs for one clip."""
    batch, read, write = measured.batches[setup.batch_size], measured.read, measured.write
    decoded = measured.decode.core_s if setup.decode == "actor" else 0.0
    actor_s = max(batch.wall_s, decoded / ACTOR_DECODERS)
    found = {
        "cores": (read.core_s + write.core_s + batch.core_s + decoded) / setup.cores,
        "actors": actor_s / setup.placed,
    }
    if setup.in_process:
        return found | {"reading": read.wall_s / STEP_THREADS, "write": write.wall_s / STEP_THREADS}
    tasks = max(1.0, (setup.cores - setup.placed * setup.actor_cpus) * TASKS_PER_CORE)
    found |= {"tasks": (read.wall_s + write.wall_s) / tasks}
    if setup.actor_gpus:
        found["gpu"] = (batch.gpu_s or batch.model_s) / math.ceil(setup.gpus_used - 1e-6)
    sent = measured.flac_bytes / (measured.duration_s * WAVEFORM_BYTES_PER_S) if setup.decode == "actor" else 1.0
    found["network"] = measured.transfer_s * min(1.0, sent) / min(setup.nodes, setup.placed)
    found["driver"] = 1 / (DRIVER_SHARDS_PER_S * measured.clips_per_shard)
    return found


def throughput(measured: Measured, setup: Setup) -> float:
    """Return clips a second of a job."""
    return 1 / max(loads(measured, setup).values())


def eta(measured: Measured, setup: Setup, clips: int) -> float:
    """Return the seconds until so many clips are captioned; 0 for none."""
    return clips and measured.start_s + clips / throughput(measured, setup)


def limit(measured: Measured, setup: Setup) -> str:
    """Return what limits the rate: the largest part of what the slowest pool does; a key of LIMITS."""
    found, batch = loads(measured, setup), measured.batches[setup.batch_size]
    pool = max(found, key=lambda name: found[name])
    if pool in ("tasks", "reading"):
        return _waiting(measured, pool)
    if pool == "actors":
        return "model" if batch.model_s >= batch.wall_s / 2 else "actor"
    return _busiest(measured, setup) if pool == "cores" else pool


def _waiting(measured: Measured, pool: str) -> str:
    """Return what tasks wait for: a store, or nothing, and then there are too few of them."""
    if pool == "tasks" and measured.write.wall_s > measured.read.wall_s:
        return "write"
    fetch = measured.fetch
    works = fetch.core_s + measured.decode.core_s + measured.encode.core_s
    return "store" if fetch.wall_s - fetch.core_s > works else "tasks"


def _busiest(measured: Measured, setup: Setup) -> str:
    """Return what cores do most of the time."""
    known = {name: getattr(measured, name).core_s for name in ("fetch", "decode", "encode", "write")}
    rest = measured.read.core_s - known["fetch"] - known["decode"] - known["encode"]
    captioning = "actor" if setup.actor_gpus else "model"
    parts = known | {"check": rest, captioning: measured.batches[setup.batch_size].core_s}
    return max(parts, key=lambda name: parts[name])
