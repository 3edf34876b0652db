"""What limits a caption job, and which flags change that: plain arithmetic on what `pipeline doctor` measured."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.planning.capacity import TASKS_PER_CORE
from pipeline.planning.workload import BatchRate, Measured, Setup, Work, eta, limit, loads, throughput

GPU_SHARES = (1.0, 0.5, 0.25)  # of an actor
MIN_GAIN = 1.1  # less is within the scatter of a measurement of a minute
RAY_START_S = 30.0  # until the first shard of a Ray that is started in place; only an order of magnitude is needed
GPU_MEMORY_SHARE = 0.9  # of a GPU that actors may fill

LIMITS = {
    "store": "reading: tasks wait for the store that holds the source",
    "tasks": "the tasks that read: there are too few of them for these cores",
    "fetch": "the cores: most of their time goes into reading bytes from the store",
    "decode": "the cores: most of their time goes into decoding and resampling",
    "encode": "the cores: most of their time goes into encoding FLAC, as the source is not mono 16-bit FLAC at 32 kHz",
    "check": "the cores: most of their time goes into checking and packing clips",
    "model": "the model",
    "actor": "the actor's own work beside the model",
    "gpu": "the arithmetic of the GPU",
    "network": "the network to the nodes with actors",
    "write": "writing shards",
    "driver": "the driver, which hands out shards one by one; a larger --clips-per-shard gives it fewer",
    "start-up": "start-up: the job is short beside it, and no pool size changes that",
}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One change. Rates are those of the whole job, with the changes named before it made."""

    flags: str
    """To add to the command; empty where it takes other hardware."""
    reason: str
    clips_per_s_before: float
    clips_per_s: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What limits a job, what to change, and how long it takes."""

    limit: str
    """A key of LIMITS."""
    loads: dict[str, float]
    """Seconds that each pool needs for one clip; the largest sets the rate."""
    clips_per_s: float
    clips: int
    """That are not captioned yet."""
    eta_s: float
    gpu_hours: float
    advised_eta_s: float
    """With every advised flag."""
    advice: list[Advice]


def diagnose(measured: Measured, setup: Setup, clips: int) -> Diagnosis:
    """Return what limits captioning so many clips."""
    rate, eta_s = throughput(measured, setup), eta(measured, setup, clips)
    advice, advised = _advise(measured, setup, clips)
    starting = clips and measured.start_s > clips / rate
    return Diagnosis(
        limit="start-up" if starting else limit(measured, setup),
        loads=loads(measured, setup),
        clips_per_s=rate,
        clips=clips,
        eta_s=eta_s,
        gpu_hours=eta_s / 3600 * setup.gpus_used,
        advised_eta_s=eta(measured, advised, clips),
        advice=advice,
    )


def _advise(measured: Measured, setup: Setup, clips: int) -> tuple[list[Advice], Setup]:
    """Return the changes that pay, the best first, and the setup with all their flags; other hardware comes last."""
    advice: list[Advice] = []
    now = setup
    while True:
        before = throughput(measured, now)
        better = [each for each in _flag_changes(measured, now) if throughput(measured, each) >= MIN_GAIN * before]
        if setup.in_process:
            better = [each for each in better if _saved_s(measured, now, each, clips) > RAY_START_S]
        best = max(better, key=lambda each: (round(throughput(measured, each), 6), -each.actors), default=None)
        if best is None:
            break
        advice.append(_advice(measured, now, best))
        now = best
    if now.actor_gpus and limit(measured, now) in ("model", "actor", "gpu"):
        larger = replace(now, gpus=2 * now.gpus, actors=2 * now.placed)
    else:
        larger = replace(now, nodes=2 * now.nodes, cores=2 * now.cores)
    if not now.in_process and throughput(measured, larger) >= MIN_GAIN * throughput(measured, now):
        advice.append(_advice(measured, now, larger))
    return advice, now


def _saved_s(measured: Measured, before: Setup, after: Setup, clips: int) -> float:
    return eta(measured, before, clips) - eta(measured, after, clips)


def _flag_changes(measured: Measured, setup: Setup) -> Iterator[Setup]:
    """Yield the setups that a change of one kind leads to."""
    yield from (replace(setup, batch_size=size) for size in measured.batches if size != setup.batch_size)
    if setup.actor_gpus:
        memory = measured.batches[setup.batch_size].memory_share
        for share in GPU_SHARES:
            fits = share == 1 or memory / share <= GPU_MEMORY_SHARE
            if fits and (fitting := math.floor(setup.gpus / share)):
                yield replace(setup, in_process=False, actors=fitting, actor_gpus=share)
    else:
        most = math.floor((setup.cores - 1 / TASKS_PER_CORE) / setup.actor_cpus)
        yield from (replace(setup, in_process=False, actors=count) for count in range(setup.actors + 1, most + 1))
        if setup.in_process:
            yield replace(setup, in_process=False)
    if not setup.in_process:
        yield replace(setup, decode="actor" if setup.decode == "reader" else "reader")


def _advice(measured: Measured, before: Setup, after: Setup) -> Advice:
    flags, slow = before.flags_to(after), limit(measured, before)
    batch = measured.batches[before.batch_size]
    if after.gpus > before.gpus:
        flags, reason = "", f"{after.gpus:g} GPUs instead of {before.gpus:g}, with --actors.max {after.actors}"
    elif after.cores > before.cores:
        flags, reason = "", f"{after.nodes} nodes such as the present {before.nodes}"
    elif after.batch_size != before.batch_size:
        reason = f"the model takes {measured.batches[after.batch_size].model_s * 1e3:.2g} ms a clip in batches of "
        reason += f"{after.batch_size}, and {batch.model_s * 1e3:.2g} in those of {before.batch_size}"
    elif after.decode != before.decode:
        reason = "FLAC has fewer bytes to send than samples" if after.decode == "actor" else "each clip is decoded once"
    elif after.actor_gpus and after.actors > before.actors and after.actor_gpus == before.actor_gpus:
        reason = f"actors hold {before.gpus_used:g} of {before.gpus:g} GPUs"
    elif after.actor_gpus:
        busy = (batch.gpu_s or batch.model_s) / batch.wall_s
        reason = f"one actor keeps its GPU busy for {busy:.0%} of the time"
    else:
        reason = f"{after.placed} actors work side by side, and there are {after.cores:g} cores"
    return Advice(
        flags=flags,
        reason=f"{reason}; the limit is {LIMITS[slow]}",
        clips_per_s_before=throughput(measured, before),
        clips_per_s=throughput(measured, after),
    )


def describe(rates: Mapping[str, Any], found: Diagnosis, max_bad_fraction: float) -> str:
    """Return a diagnosis and what it was made from, for people."""
    lines = [*_costs(rates), "", f"limit: {LIMITS[found.limit]}", f"rate: {found.clips_per_s:,.1f} clips/s"]
    lines.append(f"time: {_duration(found.eta_s)} for {found.clips:,} clips, {found.gpu_hours:,.2f} GPU hours")
    for change in found.advice:
        rise = f"{change.clips_per_s_before:,.1f} -> {change.clips_per_s:,.1f} clips/s"
        lines.append(f"change: {change.flags or 'other hardware'}: {rise}: {change.reason}")
    if any(change.flags for change in found.advice):
        lines.append(f"time with these flags: {_duration(found.advised_eta_s)}")
    if not found.advice:
        lines.append("change: nothing; no flag makes it a tenth faster")
    if (share := rates["clip"]["failed_share"]) > max_bad_fraction:
        reasons = ", ".join(rates["clip"]["failed"])
        lines.append(f"the job will fail: {share:.0%} of the clips cannot be read ({reasons}); see --max-bad-fraction")
    return "\n".join([*lines, "training: `python -m train doctor <config> --data ...`, or --data here"])


def _costs(rates: Mapping[str, Any]) -> list[str]:
    """Return a line for each stage: milliseconds of a core, and of what does it, for one clip."""
    measured, batch = Measured.from_rates(rates), rates["batches"][str(rates["about"]["batch_size"])]
    rows: dict[str, Work | BatchRate] = {
        "read": measured.read,
        "  fetch, one thread": measured.fetch,
        "  decode, one thread": measured.decode,
        "  encode, one thread": measured.encode,
        "caption": measured.batches[rates["about"]["batch_size"]],
        "write": measured.write,
    }
    hardware, startup = rates["hardware"], rates["startup"]
    lines = [f"{'a clip takes':<22}{'core ms':>9}{'wall ms':>9}"]
    lines += [f"{name:<22}{work.core_s * 1e3:>9.2f}{work.wall_s * 1e3:>9.2f}" for name, work in rows.items()]
    busy = f", GPU computes {batch['gpu_s'] / batch['wall_s']:.0%} of the time" if batch["gpu_s"] else ""
    first_s = max(startup["read_s"], startup["actor_s"]) + startup["connect_s"]
    return [
        *lines,
        f"model {batch['model_s'] * 1e3:.2f} ms a clip on {rates['about']['device']}{busy}; "
        f"{rates['clip']['canonical_share']:.0%} of the clips are canonical FLAC",
        f"start-up: engine {startup['connect_s']:.1f} s, model {startup['actor_s']:.1f} s; first shard is captioned after "
        f"some {first_s:.0f} s",
        f"hardware: {hardware['nodes']:g} nodes, {hardware['cores']:g} cores, {hardware['gpus']:g} GPUs",
    ]


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:,.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:,.1f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
