"""How fast each stage of `caption` is where it will run: `python -m pipeline probe <config>`.

Each stage runs by itself, on real clips, in a Ray task that asks for what the stage asks for, and is measured for a
third of the time. `plan --estimate` makes nodes, hours and costs of the table, <out>/rates.json.
"""

import dataclasses
import itertools
import logging
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.dataset import staging
from pipeline.errors import InputError, JobError
from pipeline.graph import caption_graph, engine
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionConfig, check_command
from pipeline.graph.reader import Reader
from pipeline.graph.shard_batch import ShardBatch
from pipeline.graph.write_shard import write_shard
from pipeline.planning import capacity
from pipeline.planning.plan import Plan
from pipeline.planning.publish import publish_plan

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
RATES_FILE = "rates.json"
MAX_SHARDS = 64  # of the plan, evenly spaced, that a probe reads from


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(CaptionConfig):
    """Measure how fast each stage of `caption` is; takes its flags."""

    out: str = ""
    """Folder or URI for rates.json, seen by every node; trial shards lie there for a while."""
    seconds: float = 60.0
    """How long to measure, in seconds: a third for each stage, and at least one shard. Starting the model is extra."""


class Timing(NamedTuple):
    """How long some clips took."""

    clips: int
    wall_s: float
    cpu_s: float  # in which cores worked

    def clips_per_core_s(self, tasks_per_core: float) -> float:
        """Return the clips a second of one core: what its arithmetic allows, and what the waiting of its tasks does."""
        return self.clips / max(self.cpu_s, self.wall_s / tasks_per_core)


def run(config: ProbeConfig) -> None:
    """Measure, and write <out>/rates.json."""
    if config.seconds <= 0:
        raise InputError("--seconds", config.seconds, "use a time above 0")
    out = run_dir.writable(config.out)
    checkpoint_info, draft = check_command(dataclasses.replace(config, out=""))
    audio_filter = dataclasses.replace(config.audio_filter, drop_copies=False)  # which a job finds before it reads
    config = dataclasses.replace(config, captioner=storage.resolve(config.captioner), audio_filter=audio_filter)
    trial = storage.join(out, f"trial-{uuid.uuid4().hex[:8]}")  # nobody else's: it is removed
    model = {"captioner": config.captioner, "captioner_revision": checkpoint_info.revision}
    try:
        plan = publish_plan(trial, draft)
        storage.publish_json(storage.join(trial, run_dir.RUN_FILE), {**model, "arithmetic": config.arithmetic})
        read = caption_graph.make_reader(config, trial, plan, checkpoint_info.network.clip_s)
        rates = measure(config, trial, plan, read)
    finally:
        storage.remove(trial)
    rates["about"] |= {"source": storage.resolve(config.source), **model}
    storage.publish_json(storage.join(out, RATES_FILE), rates)
    log.info("probe: %s", storage.join(out, RATES_FILE))
    print(describe(rates))


def measure(config: ProbeConfig, trial: str, plan: Plan, read: Reader) -> dict[str, Any]:
    """Return the content of rates.json: the rates of the three stages, each on a node that Ray gives to it."""
    numbers = np.linspace(0, len(plan.shards) - 1, MAX_SHARDS).round().astype(int).tolist()
    third_s, pool, tasks_per_core = config.seconds / 3, config.actors, 1 / engine.TASK_CPUS
    run_task = partial(engine.run_single, in_process=pool.in_process)
    log.info("probe: reading for %.0f s, then captioning, then writing", third_s)
    reading, shard, failed = run_task(read_for, third_s, read, list(dict.fromkeys(numbers)))
    captioning, start_s, captioned, device = run_task(caption_for, third_s, config, shard, actor=pool)
    writing = run_task(write_for, third_s, trial, plan, captioned)
    clips = [clip for clip in ShardBatch.from_table(shard).clips if clip["status"] == "ready"]
    return {
        "read": {**reading._asdict(), "clips_per_s": reading.clips_per_core_s(tasks_per_core)},
        "caption": {**captioning._asdict(), "clips_per_s": captioning.clips / captioning.wall_s},
        "write": {**writing._asdict(), "clips_per_s": writing.clips_per_core_s(tasks_per_core)},
        "start_s": start_s,
        "clip": {
            "duration_s": float(np.mean([clip["num_samples"] for clip in clips])) / audio.SAMPLE_RATE_HZ,
            "flac_bytes": float(np.mean([clip["flac_size"] for clip in clips])),
            "failed_share": failed,
        },
        "about": {
            "device": device,
            "batch_size": config.batch_size,
            "arithmetic": config.arithmetic,
            "guidance": list(config.guidance),
            "decodings": [str(decoding) for decoding in config.decodings],
            "clips_per_shard": config.clips_per_shard,
        },
    }


def read_for(seconds: float, read: Reader, numbers: Sequence[int]) -> tuple[Timing, pa.Table, float]:
    """Read shards for a while; return the timing, one shard with clips that can be captioned, and the share that failed."""
    batches: list[pa.Table] = []
    failed = clips = 0

    def one(number: int) -> int:
        nonlocal failed, clips
        batch = read(pa.table({"shard": [number]}))
        states = [clip["status"] for clip in ShardBatch.from_table(batch).clips]
        failed, clips = failed + states.count("failed"), clips + len(states)
        if not batches and "ready" in states:
            batches.append(batch)
        return len(states)

    timing = repeat(seconds, one, numbers)
    if not batches:
        raise JobError(f"none of the {clips} clips that were tried can be read; `pipeline caption` states why")
    return timing, batches[0], failed / clips


def caption_for(seconds: float, config: CaptionConfig, shard: pa.Table) -> tuple[Timing, float, pa.Table, str]:
    """Caption one shard again and again.

    Returns:
        The timing, the seconds in which the model started, the captioned shard, and the name of the device.
    """
    started = time.monotonic()
    actor = CaptionActor(config)
    captioned = actor(shard)  # a first time: kernels are chosen, memory is taken
    start_s = time.monotonic() - started
    states = [clip["status"] for clip in ShardBatch.from_table(captioned).clips]
    if "ready" not in states:
        raise JobError("no clip of the trial can be captioned; `pipeline caption` states why")

    def one(_: int) -> int:
        list(calls.map(actor, [shard] * engine.CONCURRENT))
        return states.count("ready") * engine.CONCURRENT

    with ThreadPoolExecutor(engine.CONCURRENT) as calls:
        timing = repeat(seconds, one, [0])
    return timing, start_s, captioned, _name(config.actors.torch_device())


def write_for(seconds: float, trial: str, plan: Plan, captioned: pa.Table) -> Timing:
    """Publish a captioned shard under one number after another; return the timing."""
    batch = ShardBatch.from_table(captioned)
    flac = bytes(staging.read(batch.audio))

    def one(number: int) -> int:
        staged = staging.write(trial, number, [flac])
        write_shard(dataclasses.replace(batch, shard=number, audio=staged).to_table(), trial, plan)
        return len(batch.clips)

    return repeat(seconds, one, itertools.count())


def repeat(seconds: float, one: Callable[[int], int], numbers: Iterable[int]) -> Timing:
    """Call with one number after another, from the first again after the last, until the time is over."""
    started, cpu_started, clips = time.monotonic(), _cpu_s(), 0
    for number in itertools.cycle(numbers) if isinstance(numbers, Sequence) else numbers:
        clips += one(number)
        if time.monotonic() - started >= seconds:
            break
    return Timing(clips, time.monotonic() - started, _cpu_s() - cpu_started)


def _cpu_s() -> float:
    """Return the time that cores worked for this process so far, ffmpeg's processes included."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def describe(rates: dict[str, Any]) -> str:
    """Return the rates, and which stage waits for which, for people."""
    read, made, write = (capacity.rate(rates, stage) for stage in capacity.STAGES)
    cores = made / read + made / write
    return "\n".join(
        [
            f"read     {read:10,.1f} clips/s a core",
            f"caption  {made:10,.1f} clips/s an actor, on {rates['about']['device']}; {rates['start_s']:.0f} s to start",
            f"write    {write:10,.1f} clips/s a core",
            f"an actor is kept busy by {cores:.1f} cores of reading and writing: with fewer it waits, with more they do",
        ]
    )


def _name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
