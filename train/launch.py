"""Run a worker function on Ray Train, on any number of workers; the only module of the room that knows Ray.

`num_workers=0` runs the same function in this process: for tests and debuggers. Ray is imported when a run starts: the
configs of the command line live in modules that import this one, and --help should not wait for an engine.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline import storage
from pipeline.cli import InputError, JobError
from train.loop import Context
from train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Which machines train."""

    num_workers: int = 1
    """Training processes; each takes one GPU, or its CPUs. 0 runs in this process."""
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
    if scale.gpu and workers == 0:
        raise InputError("--scale.gpu", True, "needs --scale.num-workers of 1 or more")
    if not 1 <= batch <= num_clips:
        raise InputError("--optim.batch-size", batch, f"there are {num_clips} clips; use 1 to {num_clips}")
    if workers > 1 and batch % workers:
        raise InputError("--optim.batch-size", batch, f"use a multiple of --scale.num-workers ({workers})")
    optim.check()


Worker = Callable[[dict[str, Any], Context], None]


def launch(worker: Worker, config: dict[str, Any], scale: ScaleConfig, out: str) -> None:
    """Run `worker(config, context)` on every training process and wait for all.

    Raises:
        JobError: when the workers failed more often than `max_failures`; carries the cause.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    if scale.num_workers > 0:
        ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)
        if scale.gpu and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
            raise InputError("--scale.gpu", True, "there is no GPU here; leave it out, or run it as a job on a cluster")
    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={"worker": worker, "config": config, "scale": scale},
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.num_workers,
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
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise JobError(f"training failed: {_cause(error)}") from error
    storage.remove(storage.join(out, "ray"))  # Ray's own bookkeeping; our states and checkpoints lie beside it


def _run_worker(job: dict[str, Any]) -> None:
    import ray.train.torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for engine in ("ray", "httpx"):
        logging.getLogger(engine).setLevel(logging.WARNING)
    scale: ScaleConfig = job["scale"]
    torch.set_num_threads(scale.cpus_per_worker if scale.num_workers else os.cpu_count() or 1)
    here = ray.train.get_context()
    device = ray.train.torch.get_device() if scale.gpu else torch.device("cpu")
    context = Context(rank=here.get_world_rank(), world_size=here.get_world_size(), device=device)
    job["worker"](job["config"], context)


def _cause(error: BaseException) -> str:
    """Return the innermost message of a chain: what the worker itself said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
