"""Run a worker function on Ray Train, on any number of workers; the only module of `train` that imports Ray.

`num_workers=0` runs the same function in this process, without Ray: for one machine and for debuggers. Ray is imported
when a run starts: the configs of the command line live in modules that import this one, and --help should not wait for an
engine.
"""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from pipeline import storage
from pipeline.errors import InputError, JobError
from train.data import reading
from train.trainer.context import STOP, Context
from train.trainer.monitor import ScalarWriter
from train.trainer.optim import OptimConfig

Worker = Callable[[Context], None]  # what one training process does
SAVE_FILE = "save_now"  # under --out: asks the leading worker to save its state; it removes the file afterwards
CHECK_EVERY_S, MAX_WAIT_S = 2.0, 60.0


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Which machines train."""

    num_workers: int = 1
    """Training processes; each takes one GPU, or its CPUs. 0 runs in this process."""
    min_workers: int = 0
    """Go on with as few as these when nodes are lost, and with more when they come back; 0 waits for all."""
    gpu: bool = False
    """Give every worker one GPU."""
    cpus_per_worker: int = 1
    """CPU cores of each worker."""
    max_failures: int = 3
    """Restarts after a lost worker or node, each from the newest saved state."""


def check(scale: ScaleConfig, optim: OptimConfig, num_clips: int) -> None:
    """Raise InputError when a run cannot be made of these numbers."""
    batch, workers = optim.batch_size, scale.num_workers
    if workers < 0 or scale.cpus_per_worker < 1:
        raise InputError("--scale.num-workers", workers, "use 0 or more, with --scale.cpus-per-worker of 1 or more")
    if not 0 <= scale.min_workers <= workers:
        raise InputError("--scale.min-workers", scale.min_workers, f"use 0 to --scale.num-workers ({workers})")
    if scale.gpu and workers == 0:
        raise InputError("--scale.gpu", True, "needs --scale.num-workers of 1 or more")
    if not 1 <= batch <= num_clips:
        raise InputError("--optim.batch-size", batch, f"there are {num_clips} clips; use 1 to {num_clips}")
    if workers > batch:
        raise InputError("--optim.batch-size", batch, f"use at least --scale.num-workers ({workers})")
    optim.check()


def launch(worker: Worker, scale: ScaleConfig, out: str, ingest: Literal["local", "ray"] = "local") -> None:
    """Run `worker` on every training process and wait for all; it is pickled. `ingest` as in `LoaderConfig`.

    Raises:
        JobError: when the workers failed more often than `max_failures`; carries the cause.
    """
    if scale.num_workers == 0:
        _run_in_process(worker, out, ingest)
        return
    import ray.train
    from ray.train.torch import TorchTrainer

    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
    if scale.gpu and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
        raise InputError("--scale.gpu", True, "there is no GPU here; leave it out, or run it as a job on a cluster")
    trainer = TorchTrainer(
        partial(_run_worker, worker, scale, out, ingest),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(scale.min_workers, scale.num_workers) if scale.min_workers else scale.num_workers,  # type: ignore[arg-type]
            use_gpu=scale.gpu,
            resources_per_worker={"CPU": scale.cpus_per_worker, **({"GPU": 1} if scale.gpu else {})},
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name="ray",
            storage_path=out,
            failure_config=ray.train.FailureConfig(max_failures=scale.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        with _saving_on_sigterm(out, in_process=False):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise JobError(f"training failed: {_cause(error)}") from error
    storage.remove(storage.join(out, "ray"))  # Ray's own bookkeeping; our states and checkpoints lie beside it


def _run_in_process(worker: Worker, out: str, ingest: Literal["local", "ray"]) -> None:
    _set_up_logging()
    torch.set_num_threads(_num_threads())
    context = Context(
        rank=0,
        world_size=1,
        device=torch.device("cpu"),
        stop_signal=_stop_after_sigterm,
        load=_load_anywhere if ingest == "ray" else None,
        gauge=None,
    )
    with _saving_on_sigterm(out, in_process=True):
        worker(context)


def _num_threads() -> int:
    """Return how many threads torch takes: OMP_NUM_THREADS, which shares cores with other processes, else all cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for engine in ("ray", "httpx"):
        logging.getLogger(engine).setLevel(logging.WARNING)


def _run_worker(worker: Worker, scale: ScaleConfig, out: str, ingest: Literal["local", "ray"]) -> None:
    import ray.train.torch

    _set_up_logging()
    torch.set_num_threads(scale.cpus_per_worker)
    here = ray.train.get_context()
    device = ray.train.torch.get_device() if scale.gpu else torch.device("cpu")
    rank = here.get_world_rank()
    context = Context(
        rank=rank,
        world_size=here.get_world_size(),
        device=device,
        stop_signal=_SaveRequests(out, rank),
        load=_load_anywhere if ingest == "ray" else None,
        gauge=_gauges(out),
    )
    worker(context)


_sigterm_received = False  # by this process


def _stop_after_sigterm() -> str:
    return STOP if _sigterm_received else ""


class _SaveRequests:
    """The stop signal of a Ray Train worker: a node will be taken away soon, or the driver received SIGTERM."""

    def __init__(self, out: str, rank: int) -> None:
        self.marker, self.leads, self.checked_at, self.requested = storage.join(out, SAVE_FILE), rank == 0, 0.0, False

    def __call__(self) -> str:
        import ray.train

        if self.requested:  # a step ago: the state is saved since, and the driver may end
            storage.remove(self.marker)
            self.requested = False
        if ray.train.get_preemption_info() is not None:
            return "a node is going to be taken away"
        if self.leads and time.monotonic() - self.checked_at > CHECK_EVERY_S:
            self.checked_at = time.monotonic()
            self.requested = storage.exists(self.marker)
        return "the driver received SIGTERM" if self.requested else ""


@contextmanager
def _saving_on_sigterm(out: str, in_process: bool) -> Iterator[None]:
    """Save the state after SIGTERM: in this process after the step, or through a file that the leading worker checks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    marker = storage.join(out, SAVE_FILE)

    def stop(_signal: int, _frame: object) -> None:
        global _sigterm_received
        _sigterm_received = True
        if in_process:
            return
        storage.publish(marker, b"")
        waited = time.monotonic()
        while storage.exists(marker) and time.monotonic() - waited < MAX_WAIT_S:
            time.sleep(0.5)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        storage.remove(marker)


def _load_anywhere(
    wanted: list[reading.ClipRequest], num_samples: int, cache: reading.CacheConfig
) -> "Future[reading.Loaded]":
    """Read and decode clips in a task on any node that has a CPU free; each clip alone, as no node keeps pieces."""
    import ray

    alone = [each._replace(location=reading.drop_neighbours(each.location)) for each in wanted]
    task = ray.remote(reading.load).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=-1)
    future: Future[reading.Loaded] = task.remote(alone, num_samples, cache).future()
    return future


def _gauges(out: str) -> ScalarWriter:
    """Return what writes scalars to Ray's own metrics, for Prometheus."""
    from ray.util.metrics import Gauge

    made: dict[str, Gauge] = {}

    def write(scalars: Mapping[str, float], _step: int) -> None:
        for name, value in scalars.items():
            clean = "blat_" + re.sub(r"\W+", "_", name.replace("@", "_at_"))
            if clean not in made:
                made[clean] = Gauge(clean, description=name, tag_keys=("run",))
            made[clean].set(value, tags={"run": out.rpartition("/")[2]})

    return write


def _cause(error: BaseException) -> str:
    """Return the innermost message of a chain: the worker's own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
