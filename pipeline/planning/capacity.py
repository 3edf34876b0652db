"""Clips, rates and prices -> nodes, hours, storage, requests and cost of a caption job: `plan --estimate`. Plain arithmetic.

Every number is a count or a product; what the products start from is measured: the rates by `pipeline doctor`, requests,
planning and the driver as noted at the constants.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.errors import InputError
from pipeline.planning import cut

STAGES = ("read", "caption", "write")
CLIP = {"duration_s": 10.0, "flac_bytes": 400_000.0}  # where the rates state none: AudioSet's, 32 kHz mono 16-bit
READS_PER_CLIP, READS_PER_SHARD, READS = 2, 29, 10  # S3's GET and HEAD; counted in tests/test_pipeline_capacity.py
WRITES_PER_SHARD = 15  # S3's PUT, COPY and LIST, which cost the same; deleting is free
PLAN_S_PER_CLIP, PLAN_BYTES_PER_CLIP = 18.5e-6, 270  # `make bench`, BENCHMARKS.md
HEAD_GB = 8.0  # for planning, of the 12 to 16 that heads in cluster/ have
DRIVER_SHARDS_PER_S = 7.4  # of one driver whose actors were all busy; `make scaling`, BENCHMARKS.md
SHARDS_AHEAD = 6  # on their way to an actor, in it, or on their way from it: engine.IN_FLIGHT and CONCURRENT
TASKS_PER_CORE = 2  # engine.TASK_CPUS
TASK_GB = 0.5  # engine.TASK_MEMORY
WAVEFORM_BYTES_PER_S = 64_000  # of samples on their way to an actor: 32 kHz, 16 bits


@dataclass(frozen=True, kw_only=True)
class CapacityConfig:
    """What to size a caption job for. Prices are in any one currency; a price of 0 is not known."""

    clips: tuple[int, ...] = ()
    """Numbers of clips to estimate for, beside those of the plan."""
    rates: str = ""
    """The rates.json of `pipeline doctor`, or a JSON table of clips a second: {"read": per core, "caption": per actor,
    "write": per core}."""
    hours: float = 24.0
    """Time in which the captions are wanted, in hours; decides the number of actors."""
    max_actors: int = 64
    """Actors that there are at most; with too few of them it takes longer."""
    gpus_per_node: int = 1
    """Actors on a GPU node."""
    cores_per_node: int = 16
    """CPU cores of a node for reading and writing."""
    gpu_node_price: float = 0.0
    """Price of a GPU node for an hour."""
    cpu_node_price: float = 0.0
    """Price of a node for reading and writing for an hour."""
    storage_price: float = 0.0
    """Price of a GB stored for a month."""
    read_price: float = 0.0
    """Price of 1,000 GET requests."""
    write_price: float = 0.0
    """Price of 1,000 PUT, COPY and LIST requests."""

    def check(self) -> dict[str, Any]:
        """Return the table of rates. Raises InputError for a field that cannot be."""
        if any(clips < 1 for clips in self.clips):
            raise InputError("--capacity.clips", self.clips, "use 1 or more")
        for name in ("hours", "max_actors", "gpus_per_node", "cores_per_node"):
            if getattr(self, name) <= 0:
                raise InputError(f"--capacity.{name.replace('_', '-')}", getattr(self, name), "use a number above 0")
        for name in ("gpu_node_price", "cpu_node_price", "storage_price", "read_price", "write_price"):
            if getattr(self, name) < 0:
                raise InputError(f"--capacity.{name.replace('_', '-')}", getattr(self, name), "use 0 or more")
        return read_rates(self.rates)


@dataclass(frozen=True, kw_only=True)
class CapacityEstimate:
    """What a caption job takes."""

    clips: int
    audio_h: float
    shards: int
    actors: int
    gpu_nodes: int
    cores: float  # busy with reading and writing
    cpu_nodes: int
    hours: float
    gpu_object_store_gb: float  # of each node; as much again on its disk, for what Ray spills
    cpu_object_store_gb: float
    cpu_memory_gb: float  # that tasks ask for, object store apart
    output_gb: float
    reads: int
    writes: int
    plan_min: float
    plan_gb: float
    cost: dict[str, float]  # by what is paid for; without what has no price
    warnings: tuple[str, ...]


def read_rates(uri: str) -> dict[str, Any]:
    """Return a table of rates. Raises InputError when it cannot be read or lacks a stage."""
    if not uri:
        remedy = 'give the rates.json of `pipeline doctor`, or a JSON table {"read": .., "caption": .., "write": ..}'
        raise InputError("--capacity.rates", uri, remedy)
    try:
        rates = storage.read_json(storage.resolve(uri))
        for stage in STAGES:
            if not rate(rates, stage) > 0:
                raise ValueError(f"the rate of {stage!r} is not above 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("--capacity.rates", uri, f"no table of rates: {error!r}") from None
    return dict(rates)


def rate(rates: Mapping[str, Any], stage: str) -> float:
    """Return the clips a second of a stage: of a core for `read` and `write`, of an actor for `caption`."""
    measured = rates[stage]
    return float(measured["clips_per_s"] if isinstance(measured, Mapping) else measured)


def clips_of_shard(clips_per_shard: int, max_shard_mb: float, rates: Mapping[str, Any]) -> int:
    """Return how many clips of the length that the rates state go into a shard with these bounds."""
    clip_mb = rates.get("clip", CLIP)["duration_s"] * cut.BYTES_PER_S / 1e6
    return min(clips_per_shard, max(1, int(max_shard_mb / clip_mb))) if max_shard_mb else clips_per_shard


def estimate(
    num_clips: int, clips_per_shard: int, rates: Mapping[str, Any], config: CapacityConfig
) -> CapacityEstimate:
    """Return what it takes to caption so many clips in the time that `config` allows."""
    clip = rates.get("clip", CLIP)
    read, made, write = (rate(rates, stage) for stage in STAGES)
    shards = -(-num_clips // clips_per_shard)
    start_s = rates.get("start_s", 0.0)
    busy_s = config.hours * 3600 - start_s
    wanted = math.ceil(num_clips / (made * busy_s)) if busy_s > 0 else config.max_actors
    wanted = max(1, min(wanted, config.max_actors, shards))
    most = DRIVER_SHARDS_PER_S * clips_per_shard  # clips a second
    actors = min(wanted, math.ceil(most / made))
    clips_per_s = min(actors * made, most)
    hours = (num_clips / clips_per_s + start_s) / 3600
    cores = clips_per_s * (1 / read + 1 / write)
    gpu_nodes, cpu_nodes = -(-actors // config.gpus_per_node), math.ceil(cores / config.cores_per_node)
    shard_gb = clips_per_shard * clip["duration_s"] * WAVEFORM_BYTES_PER_S / 1e9
    found = CapacityEstimate(
        clips=num_clips,
        audio_h=num_clips * clip["duration_s"] / 3600,
        shards=shards,
        actors=actors,
        gpu_nodes=gpu_nodes,
        cores=cores,
        cpu_nodes=cpu_nodes,
        hours=hours,
        gpu_object_store_gb=min(config.gpus_per_node, actors) * SHARDS_AHEAD * shard_gb,
        cpu_object_store_gb=config.cores_per_node * TASKS_PER_CORE * shard_gb,
        cpu_memory_gb=config.cores_per_node * TASKS_PER_CORE * TASK_GB,
        output_gb=num_clips * clip["flac_bytes"] / 1e9,
        reads=num_clips * READS_PER_CLIP + shards * READS_PER_SHARD + READS,
        writes=shards * WRITES_PER_SHARD,
        plan_min=num_clips * PLAN_S_PER_CLIP / 60,
        plan_gb=num_clips * PLAN_BYTES_PER_CLIP / 1e9,
        cost={},
        warnings=(),
    )
    return dataclasses.replace(found, cost=_cost(found, config), warnings=_warnings(found, wanted, config))


def _cost(found: CapacityEstimate, config: CapacityConfig) -> dict[str, float]:
    amounts = {
        "GPU nodes": found.gpu_nodes * found.hours * config.gpu_node_price,
        "CPU nodes": found.cpu_nodes * found.hours * config.cpu_node_price,
        "requests": (found.reads * config.read_price + found.writes * config.write_price) / 1000,
        "storage a month": found.output_gb * config.storage_price,
    }
    return {name: amount for name, amount in amounts.items() if amount}


def _warnings(found: CapacityEstimate, wanted: int, config: CapacityConfig) -> tuple[str, ...]:
    warnings = []
    if found.hours > config.hours * 1.001:
        warnings.append(f"{found.clips:,} clips: {found.actors} actors need {found.hours:,.1f} h, not {config.hours:g}")
    if found.actors < wanted:
        warnings.append(
            f"{found.clips:,} clips: {wanted} actors would be wanted, but one driver was seen to keep up with "
            f"{DRIVER_SHARDS_PER_S:g} shards a second, which {found.actors} fill; use a larger --clips-per-shard"
        )
    if found.plan_gb > HEAD_GB:
        warnings.append(
            f"{found.clips:,} clips: planning takes {found.plan_gb:,.1f} GB on the driver, heads of the files in cluster/ "
            "have 12 to 16; use a larger machine there, or several jobs, each with a part of the clips"
        )
    return tuple(warnings)
