"""Captioning by itself, with a stopwatch: what `pipeline doctor` runs in place of an actor."""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from pipeline.errors import JobError
from pipeline.graph import cluster, engine
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionConfig, frame_tagger_of
from pipeline.graph.cluster import Held
from pipeline.graph.shard_batch import ShardBatch
from pipeline.planning.workload import BatchRate
from pipeline.stopwatch import Timing, repeat

if TYPE_CHECKING:
    import torch

LARGER_BATCH = 4  # times the batch size is tried, too


@dataclass(kw_only=True)
class CaptionRates:
    """What captioning takes."""

    timing: Timing
    batches: dict[int, BatchRate]
    """By batch size: that of the config, and a larger one where the shard and the GPU's memory allow it."""
    start_s: float
    """Until the model is ready and its first shard is captioned."""
    transfer_s: float
    """In which the samples of a clip came from another node, or from this one."""
    captioned: pa.Table
    device: str
    trace: dict[str, Any]
    """Of torch, for Perfetto; empty unless asked for."""


class _Trial(NamedTuple):
    """One actor with one batch size."""

    timing: Timing
    rate: BatchRate
    captioned: pa.Table
    start_s: float
    trace: dict[str, Any]


def caption_for(seconds: float, config: CaptionConfig, shard: Held, trace: bool) -> CaptionRates:
    """Caption one shard again and again, for so many seconds with all batch sizes together.

    Raises:
        JobError: when no clip can be captioned.
    """
    began = time.monotonic()
    table = cluster.fetch(shard)
    transfer_s = time.monotonic() - began
    clips = ShardBatch.from_table(table).clips
    if config.kind == "openai":
        return _asked_once(config, table, transfer_s / len(clips))
    larger = min(LARGER_BATCH * config.batch_size, sum(clip["status"] == "ready" for clip in clips))
    share_s = seconds / 2 if larger > config.batch_size else seconds
    first = _try(share_s, config, table, trace)
    batches = {config.batch_size: first.rate}
    if larger > config.batch_size and (rate := _try_larger(share_s, replace(config, batch_size=larger), table)):
        batches[larger] = rate
    return CaptionRates(
        timing=first.timing,
        batches=batches,
        start_s=first.start_s,
        transfer_s=transfer_s / len(clips),
        captioned=first.captioned,
        device=_name(config.actors.torch_device()),
        trace=first.trace,
    )


def _asked_once(config: CaptionConfig, shard: pa.Table, transfer_s: float) -> CaptionRates:
    """Caption the first clips of a shard once, as many as --max-requests allows: an endpoint's requests may cost.

    Raises:
        JobError: when the requests do not suffice for one clip, or the endpoint refuses.
    """
    batch, each = ShardBatch.from_table(shard), len(config.guidance) * len(config.decodings)
    ready = [index for index, clip in enumerate(batch.clips) if clip["status"] == "ready"][
        : config.max_requests // each
    ]
    if not ready:
        raise JobError(f"--max-requests {config.max_requests}: one clip takes {each}")
    table = replace(batch, clips=batch.clips[: ready[-1] + 1]).to_table()
    made_at = time.monotonic()
    actor = CaptionActor(config, timed_by=frame_tagger_of(config))
    cpu_s, began = time.process_time(), time.monotonic()
    captioned = actor(table)
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
    rate = BatchRate(core_s=cpu_s / len(ready), wall_s=wall_s / len(ready), model_s=wall_s / len(ready))
    return CaptionRates(
        timing=Timing(clips=len(ready), cpu_s=cpu_s, wall_s=wall_s),
        batches={config.batch_size: rate},
        start_s=time.monotonic() - made_at,
        transfer_s=transfer_s,
        captioned=captioned,
        device="served",
        trace={},
    )


def _try_larger(seconds: float, config: CaptionConfig, shard: pa.Table) -> BatchRate | None:
    """Return the rate with a larger batch, or None where the GPU lacks the memory."""
    import torch

    try:
        return _try(seconds, config, shard, trace=False).rate
    except torch.cuda.OutOfMemoryError:
        return None


def _try(seconds: float, config: CaptionConfig, shard: pa.Table, trace: bool) -> _Trial:
    on_gpu = config.actors.device == "cuda"
    if on_gpu:
        _forget_memory()
    began = time.monotonic()
    actor = CaptionActor(config, timed_by=frame_tagger_of(config))
    captioned = actor(shard)  # a first time: kernels are chosen, memory is taken
    start_s = time.monotonic() - began
    ready = sum(clip["status"] == "ready" for clip in ShardBatch.from_table(captioned).clips)
    if not ready:
        raise JobError("no clip of the trial can be captioned; `pipeline caption` states why")
    model_s = ShardBatch.from_table(actor(shard)).busy_s / ready  # alone: no call waits for the model of another

    def one(_: int) -> int:
        list(calls.map(actor, [shard] * engine.CONCURRENT))
        return ready * engine.CONCURRENT

    with ThreadPoolExecutor(engine.CONCURRENT) as calls:
        timing = repeat(seconds, one, [0])
    computed_s, events = _profiled(actor, shard, trace) if on_gpu or trace else (0.0, {})
    rate = BatchRate(
        core_s=timing.cpu_s / timing.clips,
        wall_s=timing.wall_s / timing.clips,
        model_s=model_s,
        gpu_s=computed_s / ready if on_gpu else 0.0,
        memory_share=_memory_share() if on_gpu else 0.0,
    )
    return _Trial(timing, rate, captioned, start_s, events)


def _profiled(actor: Callable[[pa.Table], pa.Table], shard: pa.Table, trace: bool) -> tuple[float, dict[str, Any]]:
    """Caption a shard under torch's profiler; return the seconds in which a GPU computed, and the trace if asked for."""
    from torch.profiler import ProfilerActivity, profile, supported_activities

    supported = supported_activities()
    activities = [each for each in (ProfilerActivity.CPU, ProfilerActivity.CUDA) if each in supported]
    with profile(activities=activities, acc_events=True) as run:
        actor(shard)
    kernels = [each for each in run.key_averages() if each.device_type.name == "CUDA" and not each.is_user_annotation]
    computed_s = sum(each.self_device_time_total for each in kernels) / 1e6  # with operators, each would count twice
    if not trace:
        return computed_s, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        run.export_chrome_trace(str(path))
        return computed_s, json.loads(path.read_bytes())


def _forget_memory() -> None:
    """Let the peak of GPU memory be that of the next trial alone, without what the one before left in torch's cache."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def _memory_share() -> float:
    import torch

    return torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory


def _name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
