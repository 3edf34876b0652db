"""What limits `caption` where it will run, and what to change: `python -m pipeline doctor <config>`.

Each stage runs by itself, on real clips, in a Ray task or actor that asks for what the stage asks for, for a third of the
time. The output is words and <out>/rates.json; `plan --estimate` makes nodes, hours and costs of that table. With --data it
asks `train doctor` the same of training.
"""

import dataclasses
import logging
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline import audio, run_dir, storage
from pipeline.errors import InputError, JobError
from pipeline.graph import caption_graph, captioners, cluster, engine
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.measure_actor import CaptionRates, caption_for
from pipeline.graph.measure_tasks import ReadRates, read_for, write_for
from pipeline.graph.reader import Reader
from pipeline.graph.shard_batch import ShardBatch
from pipeline.planning import diagnosis
from pipeline.planning.plan import Plan, read_plan
from pipeline.planning.publish import publish_plan
from pipeline.planning.workload import Measured, Setup
from pipeline.stopwatch import Timing

log = logging.getLogger(__name__)
RATES_FILE, RAY_TRACE_FILE, TORCH_TRACE_FILE = "rates.json", "ray_timeline.json", "torch_trace.json"
MAX_SHARDS = 64  # of the plan, evenly spaced, that are read from


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(CaptionConfig):
    """Find out what limits `caption` and what to change; takes its flags."""

    out: str = ""
    """Folder or URI for rates.json, seen by every node; trial shards lie there for a while. In the folder of a dataset the
    clips that are captioned already do not count."""
    seconds: float = 60.0
    """How long to measure, in seconds: a third for each stage, and at least one shard. Starting the model,
    which on a GPU compiles it, is extra."""
    trace: bool = False
    """Save torch_trace.json of the model's batches and, with Ray, ray_timeline.json beside rates.json, for Perfetto. With
    --data: training_trace.json of two steps."""
    data: tuple[str, ...] = ()
    """Datasets to train on: `train doctor` says what limits training. Without --source, nothing else is measured."""
    training: str = "demo"
    """Config of `train doctor`, which is that of `train pretrain`."""


def run(config: DoctorConfig) -> None:
    """Measure, print what was found, and write <out>/rates.json."""
    if config.seconds <= 0:
        raise InputError("--seconds", config.seconds, "use a time above 0")
    out = run_dir.writable(config.out)
    if config.source or not config.data:
        _check_captioning(config, out)
    if config.data:
        _check_training(config, out)


def _check_captioning(config: DoctorConfig, out: str) -> None:
    info, draft = captioners.check_command(dataclasses.replace(config, out=""))
    if config.kind == "openai":
        _announce(config)
    todo = _todo(draft.plan, out, config.out)
    audio_filter = dataclasses.replace(config.audio_filter, drop_copies=False)  # which a job finds before it reads
    config = dataclasses.replace(captioners.resolved(config, info), audio_filter=audio_filter)
    measured = dataclasses.replace(config, decode="reader")  # the other way follows from the parts of reading
    trial = storage.join(out, f"trial-{uuid.uuid4().hex[:8]}")  # nobody else's: it is removed
    model = {"captioner": config.captioner, "captioner_revision": info.revision}
    try:
        plan = publish_plan(trial, draft)
        storage.publish_json(storage.join(trial, run_dir.RUN_FILE), {**model, "arithmetic": config.arithmetic})
        read = caption_graph.make_reader(measured, trial, plan, info.clip_s)
        rates = measure(measured, out, plan, read)
    finally:
        storage.remove(trial)
    rates["about"] |= {"source": storage.resolve(config.source), **model}
    found = diagnosis.diagnose(Measured.from_rates(rates), setup(config, rates), todo)
    rates["diagnosis"] = dataclasses.asdict(found)
    storage.publish_json(storage.join(out, RATES_FILE), rates)
    log.info("doctor: %s", storage.join(out, RATES_FILE))
    print(diagnosis.describe(rates, found, config.max_bad_fraction))


def _announce(config: DoctorConfig) -> None:
    """Log how many requests may be sent, which cost. Raises InputError where the command sets no bound."""
    url, bound = config.captioner_url, config.max_requests
    if not bound:
        remedy = f"to measure, it sends real requests to {url}; give how many it may send, such as 16"
        raise InputError("--max-requests", bound, f"doctor sends nothing unasked: {remedy}")
    log.info("doctor: sends up to %d requests to %s, each with one clip or its tags", bound, url)


def _todo(plan: Plan, out: str, flag_value: str) -> int:
    """Return how many clips of the plan are not captioned in a dataset at `out`; all where there is none."""
    published = read_plan(out)
    if published is None:
        return plan.num_included
    if published.hash != plan.hash:
        raise InputError("--out", flag_value, "holds another plan; use the flags of its job, or a folder of its own")
    return sum(published.count_clips(out, published.missing(out)))


def measure(config: DoctorConfig, out: str, plan: Plan, read: Reader) -> dict[str, Any]:
    """Return the content of rates.json without the diagnosis; each stage is measured on a node that Ray gives to it."""
    in_process, third_s = config.actors.in_process, config.seconds / 3
    numbers = np.linspace(0, len(plan.shards) - 1, MAX_SHARDS).round().astype(int).tolist()
    run_task = partial(engine.run_single, in_process=in_process)
    connect_s = cluster.start(in_process)
    log.info("doctor: reading for %.0f s, then captioning, then writing", third_s)
    reading = run_task(read_for, third_s, read, list(dict.fromkeys(numbers)))
    held = cluster.hold(reading.shard, in_process)
    captioning = run_task(caption_for, third_s, config.sized(plan.num_clips), held, config.trace, actor=config.actors)
    writing = run_task(write_for, third_s, read.out, plan, captioning.captioned)
    if config.trace:
        storage.publish_json(storage.join(out, TORCH_TRACE_FILE), captioning.trace)
        if not in_process:
            storage.publish_json(storage.join(out, RAY_TRACE_FILE), cluster.timeline())
    startup = {"connect_s": connect_s, "actor_s": captioning.start_s, "read_s": reading.first_s}
    return {
        **_rates(config, reading, captioning, writing),
        "startup": startup,
        "hardware": cluster.hardware(in_process)._asdict(),
    }


def _rates(config: CaptionConfig, reading: ReadRates, captioning: CaptionRates, writing: Timing) -> dict[str, Any]:
    timing, tasks_per_core = captioning.timing, 1 / engine.TASK_CPUS
    clips = [clip for clip in ShardBatch.from_table(reading.shard).clips if clip["status"] == "ready"]
    return {
        "read": {**reading.timing._asdict(), "clips_per_s": reading.timing.clips_per_core_s(tasks_per_core)},
        "caption": {**timing._asdict(), "clips_per_s": timing.clips / timing.wall_s},
        "write": {**writing._asdict(), "clips_per_s": writing.clips_per_core_s(tasks_per_core)},
        "parts": {name: dataclasses.asdict(part) for name, part in reading.parts.items()},
        "batches": {str(size): dataclasses.asdict(rate) for size, rate in captioning.batches.items()},
        "transfer_s": captioning.transfer_s,
        "start_s": captioning.start_s,
        "clip": {
            "duration_s": float(np.mean([clip["num_samples"] for clip in clips])) / audio.SAMPLE_RATE_HZ,
            "flac_bytes": float(np.mean([clip["flac_size"] for clip in clips])),
            "failed_share": sum(reading.failed.values()) / reading.timing.clips,
            "failed": reading.failed,
            "canonical_share": reading.canonical_share,
        },
        "about": {
            "device": captioning.device,
            "batch_size": config.batch_size,
            "arithmetic": config.arithmetic,
            "guidance": list(config.guidance),
            "decodings": [str(decoding) for decoding in config.decodings],
            "clips_per_shard": config.clips_per_shard,
        },
    }


def setup(config: CaptionConfig, rates: dict[str, Any]) -> Setup:
    """Return where the job runs, and its flags that advice may change."""
    pool = config.actors
    return Setup(
        **rates["hardware"],
        in_process=pool.in_process,
        actors=max(1, pool.max),
        actor_gpus=pool.gpus if pool.device == "cuda" else 0.0,
        actor_cpus=pool.cpus,
        batch_size=config.batch_size,
        decode=config.decode,
    )


def _check_training(config: DoctorConfig, out: str) -> None:
    """Run `train doctor`: it is a command of its own, as this package knows nothing of training."""
    command = [sys.executable, "-m", "train", "doctor", config.training, "--data", *config.data]
    command += ["--out", out, "--seconds", str(config.seconds)] + (["--trace"] if config.trace else [])
    log.info("doctor: %s", " ".join(command[1:]))
    if code := subprocess.run(command).returncode:
        raise JobError(f"`train doctor` ended with exit code {code}")
