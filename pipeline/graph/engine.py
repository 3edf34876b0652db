"""Run steps over shard numbers: on Ray Data, or one shard after another in this process.

The graph of a job is a list of steps. A step is a function (`Tasks`) or an object that holds a model (`Actors`); it gets
one shard as an Arrow table of one row and returns one. The same steps run on both engines:

    Ray Data     every step is a pool of tasks or actors, spread over the nodes
    in process   every step is called in this process, a few shards ahead of the next step; ray is not imported
"""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import ray_noise
from pipeline.errors import InputError, JobError
from pipeline.graph import failures
from pipeline.graph.failures import Step
from pipeline.storage import StoreFault
from pipeline.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    import ray.data
    import torch

TASK_CPUS = 0.5  # of a reading or writing task: both wait for the store half the time
TASK_MEMORY = (
    512 * 2**20
)  # bytes that Ray sets aside for a task at least: the samples of a shard, or its audio; it also
# keeps Ray from running readers inside the actors, which it does with stages that ask for the same
PROCESS_MEMORY = 200 * 2**20  # of these, what a process needs without a shard
IN_FLIGHT = 4  # shards on their way to an actor or in it
MAX_FAULTS = 8  # shards in a row that a fault of a store keeps from being done; then the job ends
CONCURRENT = 2  # shards in an actor: one is decoded while the model works on the other


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """The pool of actors that hold a model."""

    min: int = 1
    """Actors at the start."""
    max: int = 1
    """Actors at most; the pool grows while shards wait. 0 works in this process, without Ray: it starts at once, suits one
    machine, and breakpoints work."""
    gpus: float = 0.0
    """GPUs of each actor; 0 runs on CPU, fractions share a GPU."""
    cpus: float = 0.5
    """CPU cores that Ray sets aside for each actor; with 0.5 the whole graph fits on one core."""
    rehearse: bool = False
    """Compute on CPU what --actors.gpus places: a cluster's ways on machines without GPUs."""

    def check(self) -> None:
        """Raise InputError when no pool can be made of these numbers."""
        if self.max and not 1 <= self.min <= self.max:
            raise InputError("--actors.min", self.min, f"use 1 to --actors.max ({self.max})")
        if not (self.cpus > 0 and self.gpus >= 0):
            raise InputError("--actors.cpus", self.cpus, "use a number above 0, and --actors.gpus of 0 or more")

    @property
    def in_process(self) -> bool:
        """Return whether the job runs in this process."""
        return self.max == 0

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


@dataclass(frozen=True)
class Tasks:
    """A step without state, on CPUs."""

    function: Step
    memory: int = 0
    """Bytes that a task holds beside its process, where they are more than those of TASK_MEMORY."""


@dataclass(frozen=True)
class Actors:
    """A step that holds a model: `kind(*arguments)` is made once for each actor, and called for each shard."""

    kind: type
    arguments: tuple[Any, ...]
    config: ActorConfig


def rows(shards: Iterable[int], *steps: Tasks | Actors, in_process: bool) -> Iterator[dict[str, Any]]:
    """Pass every shard number through the steps and yield the rows that come out, as they are done.

    A shard that a fault of a store keeps from being done is put off to the next run, and the others go on; after MAX_FAULTS
    such shards in a row the job ends.

    Raises:
        InputError: when GPUs are asked for, there is none here, and it is no cluster that could bring some up.
        JobError: that a step raised, with the number of shards that were done before; the first StoreFault, at the end.
    """
    numbers, done, in_a_row = list(shards), 0, 0
    faults: list[StoreFault] = []
    if not numbers:
        return
    try:
        with closing((_in_process if in_process else _on_ray)(numbers, steps)) as batches:
            for batch in batches:
                error = failures.error_of(batch)
                in_a_row = in_a_row + 1 if error else 0
                if isinstance(error, StoreFault):
                    faults.append(error)
                elif error:
                    raise error
                else:
                    done += len(batch)
                    yield from batch.to_pylist()
                if in_a_row == MAX_FAULTS:
                    break
    except JobError as error:
        raise JobError(f"{error}; {done} of {len(numbers)} shards were done before that") from None
    if faults:
        raise JobError(f"{faults[0]}; {done} of {len(numbers)} shards are done")


def run_single(
    function: Callable[..., Any], *arguments: Any, actor: ActorConfig | None = None, in_process: bool
) -> Any:
    """Run a function by itself where a task of the graph would run, or an actor of the pool, and return what it returns.

    Raises:
        InputError: as `rows` does.
    """
    if in_process:
        with _actor_threads(actor) if actor else nullcontext():
            return function(*arguments)
    import ray
    import ray.exceptions

    connect()
    needs: dict[str, Any] = {"num_cpus": TASK_CPUS, "memory": TASK_MEMORY}
    if actor is not None:
        _check_gpus(actor)
        needs = {"num_cpus": actor.cpus, "num_gpus": actor.gpus}
    try:
        return ray.get(ray.remote(**needs)(function).remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError | JobError):
            raise error.cause from None  # without Ray's traceback
        raise


def _in_process(shards: list[int], steps: tuple[Tasks | Actors, ...]) -> Generator[pa.Table]:
    """Yield the results in the order of the shards; every step works in two threads, ahead of the next."""
    batches: Iterator[pa.Table] = (pa.table({"shard": [shard]}) for shard in shards)
    with ExitStack() as stack:
        for step in steps:
            if isinstance(step, Actors):
                stack.enter_context(_actor_threads(step.config))
            function = failures.task(step.function if isinstance(step, Tasks) else step.kind(*step.arguments))
            batches = stack.enter_context(closing(read_ahead(function, batches, CONCURRENT)))
        yield from batches


@contextmanager
def _actor_threads(config: ActorConfig) -> Iterator[None]:
    """Let torch have as many threads as Ray gives to an actor: results are the same to the last bit, and cores are left.

    Raises:
        InputError: when a GPU is asked for and there is none.
    """
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--actors.gpus", config.gpus, "there is no GPU here; use 0, or run it as a job on a cluster")
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(config.cpus)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_ray(shards: list[int], steps: tuple[Tasks | Actors, ...]) -> Generator[pa.Table]:
    """Yield the results as they are done."""
    import ray.data

    connect()
    numbers = [{"shard": shard} for shard in shards]
    data: ray.data.Dataset = ray.data.from_items(numbers, override_num_blocks=len(shards))
    for step in steps:
        data = _map_tasks(data, step) if isinstance(step, Tasks) else _map_actors(data, step)
    for batch in data.iter_batches(batch_size=1, batch_format="pyarrow"):
        yield pa.table(batch)


def _map_tasks(data: "ray.data.Dataset", step: Tasks) -> "ray.data.Dataset":
    return data.map_batches(
        failures.task(step.function),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=TASK_CPUS,
        memory=_memory(step),
    )


def _memory(step: Tasks) -> int:
    """Return the bytes that Ray sets aside for a task, on a node that has as many, or on the largest."""
    import ray

    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return max(TASK_MEMORY, min(PROCESS_MEMORY + step.memory, largest))


def _map_actors(data: "ray.data.Dataset", step: Actors) -> "ray.data.Dataset":
    import ray.data

    _check_gpus(step.config)
    pool = ray.data.ActorPoolStrategy(
        min_size=step.config.min,
        max_size=step.config.max,
        max_tasks_in_flight_per_actor=IN_FLIGHT,
        max_concurrent_calls_per_actor=CONCURRENT,
        enable_true_multi_threading=True,
    )
    return data.map_batches(
        type(step.kind.__name__, (failures.GuardedActor,), {}),  # by whose name Ray calls the actor
        fn_constructor_args=(partial(step.kind, *step.arguments),),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=step.config.cpus,
        num_gpus=step.config.gpus,
    )


def connect() -> None:
    """Connect to the running cluster where there is one (RAY_ADDRESS, or a local `ray start`), else start one in place."""
    import ray
    import ray.data

    ray_noise.hide()
    # the dashboard of a cluster that is started here would take seconds
    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR, include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets INFO; our lines show the progress


def _check_gpus(config: ActorConfig) -> None:
    import ray

    if config.gpus > 0 and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
        raise InputError("--actors.gpus", config.gpus, "there is no GPU here; use 0, or run it as a job on a cluster")
