"""The loader and the step of a run by themselves, on one worker."""

import dataclasses
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline import audio, storage
from pipeline.errors import JobError
from pipeline.stopwatch import Stopwatch
from train.data.clip_sets import Mixture
from train.data.loader import Batch, Loader
from train.data.prefetch import Prefetch
from train.models.clap import TwoTowers
from train.stages.doctor.diagnosis import TrainingRates
from train.stages.pretrain import clips, towers
from train.stages.pretrain.config import PretrainConfig
from train.trainer import optim, performance
from train.trainer.context import Context

RATES_FILE, TRACE_FILE = "training_rates.json", "training_trace.json"
FIRST_STEPS = 2  # kernels are chosen and memory is taken in them; they also show how many steps the time allows
TRACED_STEPS = 2


def measure(
    config: PretrainConfig, seconds: float, trace: bool, trial: str, clip_files: Sequence[str], context: Context
) -> None:
    """Measure on one worker, and write the rates and the trace to the folder `trial`.

    Args:
        config: of the run; its batch size is that of one worker.
        seconds: how long, half of it for reading.
        trace: write a trace of torch.
        trial: folder that has the tokenizer of the run.
        clip_files: names of the files of opened datasets.
        context: of the worker.
    """
    found = clips.read(config, clip_files)
    mixture = Mixture(found.datasets)
    network = towers.build(config, trial, mixture)
    order, num_samples = clips.order(config, found), round(network.config.clip_s * audio.SAMPLE_RATE_HZ)
    phrases = towers.phrases(config, mixture, order)
    collate = towers.collate(config, network, towers.labels(config, mixture), phrases)

    def make_loader(processes: int) -> Loader:
        pin, flags = context.device.type == "cuda", dataclasses.replace(config.loader, processes=processes)
        return Loader(mixture, order, num_samples, config=flags, remote=context.load, pin=pin, collate=collate)

    steps = config.optim.num_epochs(order.steps_per_epoch) * order.steps_per_epoch
    processes = config.loader.processes
    read_watch, read_clips, batch = _read_for(seconds / (4 if processes else 2), make_loader(0), steps)
    watch, loaded, _ = (
        _read_for(seconds / 4, make_loader(processes), steps) if processes else (read_watch, read_clips, batch)
    )
    step_watch, num_steps, events = _step_for(seconds / 2, config, network, batch, context, order.keyed, trace)
    rates = TrainingRates(
        device=_name(context.device),
        cores=_cores(config),
        batch=len(batch.keys),
        read_core_s=read_watch.cpu_s / read_clips,
        read_wall_s=read_watch.wall_s / read_clips,
        processes=processes,
        loader_wall_s=watch.wall_s / loaded,
        step_s=step_watch.wall_s / num_steps,
        step_core_s=step_watch.cpu_s / num_steps,
    )
    if trace:
        storage.publish_json(storage.join(trial, TRACE_FILE), events)
    storage.publish_json(storage.join(trial, RATES_FILE), dataclasses.asdict(rates))


def _read_for(seconds: float, loader: Loader, max_steps: int) -> tuple[Stopwatch, int, Batch]:
    """Read steps from the first on for a while; return the time, how many clips it took, and a batch.

    The time of the first step is not counted where there are more: processes start in it.
    """
    began, watch, read = time.monotonic(), Stopwatch(), 0
    with closing(loader.batches(0, max_steps)) as batches:
        with watch:
            batch = next(batches)
        if max_steps == 1:
            return watch, len(batch.keys), batch
        watch = Stopwatch()
        while read == 0 or time.monotonic() - began < seconds:
            with watch:
                another = next(batches, None)
            if another is None:
                break
            read += len(another.keys)
    if not bool(batch.valid.any()):
        raise JobError(f"no clip of the first step can be read: {loader.skipped}")
    return watch, read, batch


def _step_for(
    seconds: float,
    config: PretrainConfig,
    network: TwoTowers,
    batch: Batch,
    context: Context,
    keyed: Callable[[int, int], Any],
    trace: bool,
) -> tuple[Stopwatch, int, dict[str, Any]]:
    """Train on one batch again and again; return the time, the number of steps, and the trace where it is asked for."""
    device = context.device
    prepared = performance.prepare(network, device, 1, config.optim.precision, config.speed)
    optimizer = optim.build(towers.groups(network, config), config.optim)
    backward, prefetch = towers.objective(config), Prefetch(device)
    prepared.model.train()

    def one(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(prepared.model, prefetch(batch), keyed(number, 0))
        nn.utils.clip_grad_norm_(prepared.network.parameters(), config.optim.clip_norm)
        optimizer.step()

    def run(count: int) -> Stopwatch:
        with Stopwatch() as watch:
            for number in range(count):
                one(number)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return watch

    run(1)
    first = run(FIRST_STEPS)
    count = max(FIRST_STEPS, math.ceil(seconds * FIRST_STEPS / first.wall_s))
    return run(count), count, _traced(run) if trace else {}


def _traced(run: Callable[[int], Stopwatch]) -> dict[str, Any]:
    from torch.profiler import profile

    with profile(acc_events=True) as profiler:
        run(TRACED_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def _cores(config: PretrainConfig) -> float:
    """Return the cores of one worker: those of this machine, shared with the workers of its other GPUs."""
    beside = min(config.scale.num_workers, torch.cuda.device_count()) if config.scale.gpu else 1
    return len(os.sched_getaffinity(0)) / max(1, beside)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
