"""The command of `train doctor`."""

import dataclasses
import logging
import math
import uuid
from dataclasses import dataclass, field
from functools import partial

from pipeline import run_dir, storage
from pipeline.errors import InputError
from pipeline.run_dir import NOT_IDENTITY
from train.data import datasets
from train.data.clip_sets import Mixture
from train.data.loader import Clips
from train.launch import launch
from train.stages import training
from train.stages.doctor import diagnosis
from train.stages.doctor.diagnosis import TrainingRates
from train.stages.doctor.measure import RATES_FILE, TRACE_FILE, measure
from train.stages.pretrain import clips, towers
from train.stages.pretrain.config import PretrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(PretrainConfig):
    """Find out what limits `train pretrain` and what to change; takes its flags."""

    out: str = ""
    """Folder or URI for training_rates.json; the tokenizer of the trial lies there for a while."""
    seconds: float = field(default=60.0, metadata=NOT_IDENTITY)
    """How long to measure, in seconds: half for reading, half for the step. Building the model is extra."""
    trace: bool = field(default=False, metadata=NOT_IDENTITY)
    """Save training_trace.json of two steps, for Perfetto."""


def run(config: DoctorConfig) -> None:
    """Measure one worker, print what limits the run, and write <out>/training_rates.json."""
    if config.seconds <= 0:
        raise InputError("--seconds", config.seconds, "use a time above 0")
    config.check()
    out = run_dir.writable(config.out)
    config = training.with_absolute_paths(config, "data", "mixture", "validation", "init", "init_audio")
    read = clips.read(config)
    clips.check_enough(config, read)
    training.audio_revision(config.init_audio, config.network.audio)
    towers.init_revision(config)
    datasets.check_present(read.datasets)
    rates = _measure(config, out, read.datasets)
    workers, order = max(1, config.scale.num_workers), clips.order(config, read)
    epochs = config.optim.num_epochs(order.steps_per_epoch)
    num_clips = epochs * order.steps_per_epoch * config.optim.batch_size
    found = diagnosis.diagnose(rates, workers, num_clips)
    storage.publish_json(storage.join(out, RATES_FILE), diagnosis.as_json(rates, found))
    log.info("doctor: %s", storage.join(out, RATES_FILE))
    print(diagnosis.describe(rates, found))


def _measure(config: DoctorConfig, out: str, parts: list[Clips]) -> TrainingRates:
    """Measure one of the workers with its share of a batch; gradients that workers exchange are not measured."""
    scale, workers = config.scale, max(1, config.scale.num_workers)
    share = dataclasses.replace(config.optim, batch_size=math.ceil(config.optim.batch_size / workers))
    trial = storage.join(out, f"trial-{uuid.uuid4().hex[:8]}")  # nobody else's: it is removed
    worker = partial(
        measure,
        dataclasses.replace(config, optim=share),
        config.seconds,
        config.trace,
        trial,
        datasets.names(parts),
    )
    single = dataclasses.replace(scale, num_workers=min(1, scale.num_workers), min_workers=0, max_failures=0)
    try:
        towers.tokenizer(config, trial, Mixture(parts))
        launch(worker, single, trial, config.loader.ingest)
        if config.trace:
            trace = storage.read(storage.join(trial, TRACE_FILE))
            storage.publish(storage.join(out, TRACE_FILE), trace)
        return TrainingRates(**storage.read_json(storage.join(trial, RATES_FILE)))
    finally:
        storage.remove(trial)
