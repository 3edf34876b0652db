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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import audio, run_dir, storage
from pipeline.errors import InputError, JobError
from pipeline.graph import caption_graph, engine, reader
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_graph import CaptionConfig
from pipeline.planning import capacity, plan
from pipeline.stages import caption

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


def run(config: ProbeConfig) -> None:
    """Measure, and write <out>/rates.json."""
    if config.seconds <= 0:
        raise InputError("--seconds", config.seconds, "use a time above 0")
    out = run_dir.writable(config.out)
    checkpoint_info, drawn = caption.check_command(dataclasses.replace(config, out=""))
    audio_filter = dataclasses.replace(config.audio_filter, drop_copies=False)  # which a job finds before it reads
    config = dataclasses.replace(config, captioner=storage.resolve(config.captioner), audio_filter=audio_filter)
    trial = storage.join(out, f"trial-{uuid.uuid4().hex[:8]}")  # nobody else's: it is removed
    try:
        planned = plan.publish(trial, drawn)
        owner = {"captioner": config.captioner, "captioner_revision": checkpoint_info.revision}
        storage.publish_json(storage.join(trial, run_dir.RUN_FILE), {**owner, "arithmetic": config.arithmetic})
        rates = measure(config, trial, planned, caption_graph.make_reader(config, trial, planned, checkpoint_info))
    finally:
        storage.remove(trial)
    rates["about"] |= {"source": storage.resolve(config.source), **owner}
    storage.publish_json(storage.join(out, RATES_FILE), rates)
    log.info("probe: %s", storage.join(out, RATES_FILE))
    print(describe(rates))


def measure(config: ProbeConfig, trial: str, planned: dict[str, Any], read: reader.Reader) -> dict[str, Any]:
    """Return the rates of the three stages, each on a node that Ray gives to it."""
    numbers = np.linspace(0, plan.num_shards(planned) - 1, MAX_SHARDS).round().astype(int).tolist()
    third_s = config.seconds / 3
    in_process = config.actors.in_process
    log.info("probe: reading for %.0f s, then captioning, then writing", third_s)
    reading, shard, failed = engine.run_single(
        read_for, third_s, read, list(dict.fromkeys(numbers)), in_process=in_process
    )
    captioning, captioned, device = engine.run_single(
        caption_for, third_s, config, shard, actor=config.actors, in_process=in_process
    )
    writing = engine.run_single(write_for, third_s, trial, planned, captioned, in_process=in_process)
    reading["clips_per_s"] = per_core(reading, tasks_per_core=1 / engine.TASK_CPUS)
    captioning["clips_per_s"] = captioning["clips"] / captioning["wall_s"]
    writing["clips_per_s"] = per_core(writing, tasks_per_core=1 / engine.TASK_CPUS)
    clips = [clip for clip in reader.unpack(shard)[1] if clip["status"] == "written"]
    return {
        "read": reading,
        "caption": captioning,
        "write": writing,
        "start_s": captioning.pop("start_s"),
        "clip": {
            "duration_s": float(np.mean([clip["num_samples"] for clip in clips])) / audio.SAMPLE_RATE_HZ,
            "flac_bytes": float(np.mean([len(clip["flac"]) for clip in clips])),
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


def per_core(timing: dict[str, Any], tasks_per_core: float) -> float:
    """Return the clips a second of one core: what its arithmetic allows, and what the waiting of its tasks does."""
    return float(timing["clips"] / max(timing["cpu_s"], timing["wall_s"] / tasks_per_core))


def read_for(seconds: float, read: reader.Reader, numbers: Sequence[int]) -> tuple[dict[str, Any], pa.Table, float]:
    """Read shards for a while; return the timing, one shard with clips that can be captioned, and the share that failed."""
    batches: list[pa.Table] = []
    failed = clips = 0

    def one(number: int) -> int:
        nonlocal failed, clips
        batch = read(pa.table({"shard": [number]}))
        states = [clip["status"] for clip in reader.unpack(batch)[1]]
        failed, clips = failed + states.count("failed"), clips + len(states)
        if not batches and "written" in states:
            batches.append(batch)
        return len(states)

    timing = repeat(seconds, one, numbers)
    if not batches:
        raise JobError(f"none of the {clips} clips that were tried can be read; `pipeline caption` tells why")
    return timing, batches[0], failed / clips


def caption_for(seconds: float, config: CaptionConfig, shard: pa.Table) -> tuple[dict[str, Any], pa.Table, str]:
    """Caption one shard again and again; return the timing, the captioned shard and the name of the device."""
    started = time.monotonic()
    actor = CaptionActor(config)
    captioned = actor(shard)  # a first time: kernels are chosen, memory is taken
    start_s = time.monotonic() - started
    states = [clip["status"] for clip in reader.unpack(captioned)[1]]
    if "written" not in states:
        raise JobError("no clip of the trial can be captioned; `pipeline caption` tells why")

    def one(_: int) -> int:
        list(calls.map(actor, [shard] * engine.CONCURRENT))
        return states.count("written") * engine.CONCURRENT

    with ThreadPoolExecutor(engine.CONCURRENT) as calls:
        timing = repeat(seconds, one, [0])
    return timing | {"start_s": start_s}, captioned, _name(actor.device)


def write_for(seconds: float, trial: str, planned: dict[str, Any], captioned: pa.Table) -> dict[str, Any]:
    """Publish a captioned shard under one number after another; return the timing."""
    _, clips = reader.unpack(captioned)

    def one(number: int) -> int:
        caption_graph.write(reader.pack(number, clips), trial, planned)
        return len(clips)

    return repeat(seconds, one, itertools.count())


def repeat(seconds: float, one: Callable[[int], int], numbers: Any) -> dict[str, Any]:
    """Call with one number after another, from the first again after the last, until the time is over."""
    started, cpu_started, clips = time.monotonic(), _cpu_s(), 0
    for number in itertools.cycle(numbers) if isinstance(numbers, Sequence) else numbers:
        clips += one(number)
        if time.monotonic() - started >= seconds:
            break
    return {"clips": clips, "wall_s": time.monotonic() - started, "cpu_s": _cpu_s() - cpu_started}


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


def _name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
