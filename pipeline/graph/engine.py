"""Ray Data for this room: connect, and run stages of tasks and actors over shard numbers."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import ray_noise
from pipeline.errors import InputError, JobError

if TYPE_CHECKING:
    import ray.data
    import torch

TASK_CPUS = 0.5  # of a reading or writing task: both wait for the store half the time
TASK_MEMORY = 512 * 2**20  # bytes that Ray sets aside for a task: a shard in and out; it also keeps Ray from running
# readers inside the actors, which it does with stages that ask for the same
IN_FLIGHT = 4  # shards on their way to an actor or in it
CONCURRENT = 2  # shards in an actor: one is decoded while the model works on the other


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """The pool of actors that hold a model."""

    min: int = 1
    """Actors at the start."""
    max: int = 1
    """Actors at most; the pool grows while shards wait."""
    gpus: float = 0.0
    """GPUs of each actor; 0 runs on CPU, fractions share a GPU."""
    cpus: float = 0.5
    """CPU cores that Ray sets aside for each actor; with 0.5 the whole graph fits on one core."""
    rehearse: bool = False
    """Compute on CPU what --actors.gpus places: a cluster's ways on machines without GPUs."""

    def check(self) -> None:
        """Raise InputError when no pool can be made of these numbers."""
        if not 1 <= self.min <= self.max:
            raise InputError("--actors.min", self.min, f"use 1 to --actors.max ({self.max})")
        if not (self.cpus > 0 and self.gpus >= 0):
            raise InputError("--actors.cpus", self.cpus, "use a number above 0, and --actors.gpus of 0 or more")

    @property
    def device(self) -> str:
        """Return the torch device of an actor."""
        return "cuda" if self.gpus > 0 and not self.rehearse else "cpu"

    def torch_device(self) -> "torch.device":
        """Return that device, in the actor. Raises JobError where torch has no such thing."""
        import torch  # here, so that the CPU tasks of this room start without it

        if self.device == "cuda" and not torch.cuda.is_available():
            raise JobError(
                f"--actors.gpus {self.gpus:g}: Ray placed the actor on a node where torch finds no GPU; "
                "mend its driver, or try things out without one by --actors.rehearse"
            )
        return torch.device(self.device)


def connect() -> None:
    """Connect to the running cluster where there is one (RAY_ADDRESS, or a local `ray start`), else start one in place."""
    import ray
    import ray.data

    ray_noise.hide()
    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets INFO; our lines tell the progress


def shard_numbers(numbers: Iterable[int]) -> "ray.data.Dataset":
    """Return a dataset of one row, in a block of its own, for each shard; connects to Ray first."""
    import ray.data

    connect()
    rows = [{"shard": number} for number in numbers]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def map_tasks(data: "ray.data.Dataset", task: Any) -> "ray.data.Dataset":
    """Map rows one at a time through CPU tasks, spread over the nodes."""
    return data.map_batches(task, batch_size=1, batch_format="pyarrow", num_cpus=TASK_CPUS, memory=TASK_MEMORY)


def map_actors(
    data: "ray.data.Dataset", actor: type, arguments: tuple[Any, ...], config: ActorConfig
) -> "ray.data.Dataset":
    """Map rows one at a time through a pool of actors.

    Raises:
        InputError: when GPUs are asked for, this Ray has none, and it is no cluster that could bring some up.
    """
    import ray.data

    _check_gpus(config)
    pool = ray.data.ActorPoolStrategy(
        min_size=config.min,
        max_size=config.max,
        max_tasks_in_flight_per_actor=IN_FLIGHT,
        max_concurrent_calls_per_actor=CONCURRENT,
        enable_true_multi_threading=True,
    )
    return data.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=config.cpus,
        num_gpus=config.gpus,
    )


def alone(function: Callable[..., Any], *arguments: Any, actor: ActorConfig | None = None) -> Any:
    """Run a function by itself where a task of the graph would run, or an actor of the pool, and return what it returns.

    Raises:
        InputError: as `map_actors` does.
    """
    import ray

    if actor is None:
        return ray.get(ray.remote(num_cpus=TASK_CPUS, memory=TASK_MEMORY)(function).remote(*arguments))
    _check_gpus(actor)
    return ray.get(ray.remote(num_cpus=actor.cpus, num_gpus=actor.gpus)(function).remote(*arguments))


def _check_gpus(config: ActorConfig) -> None:
    import ray

    if config.gpus > 0 and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
        raise InputError("--actors.gpus", config.gpus, "there is no GPU here; use 0, or run it as a job on a cluster")


def rows(data: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    """Run a graph and yield its rows as they are done."""
    for batch in data.iter_batches(batch_size=1, batch_format="pyarrow"):
        yield from pa.table(batch).to_pylist()
