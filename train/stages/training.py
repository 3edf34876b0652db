"""What the stages that train share: common flags, the output folder, one worker's part, the checkpoint."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from pipeline import audio, run_dir, storage
from pipeline.errors import JobError
from pipeline.run_dir import NOT_IDENTITY
from train import checkpoint
from train.checkpoint import Network
from train.data.loader import Clips, Collate, Loader, LoaderConfig
from train.data.order import Order
from train.launch import ScaleConfig, Worker, launch
from train.models.encoders.configs import AudioConfig
from train.trainer import performance, run_page, state
from train.trainer.context import Context
from train.trainer.history import EpochRecord
from train.trainer.hooks import Backward, Hooks
from train.trainer.loop import fit
from train.trainer.monitor import MonitorConfig, ScalarWriters
from train.trainer.optim import OptimConfig
from train.trainer.performance import PerformanceConfig

log = logging.getLogger(__name__)
Config = TypeVar("Config", bound="TrainingConfig")
BEST = "best"  # folder of the checkpoint that validated best


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags of every stage that trains. Those that are not part of the identity change how a run is made, not its result."""

    columns: str = field(default="", metadata=NOT_IDENTITY)
    """Columns of listings that are named otherwise, as in file=path,captions=text,labels=tags."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    speed: PerformanceConfig = field(default_factory=PerformanceConfig, metadata=NOT_IDENTITY)
    """Speed and memory."""
    loader: LoaderConfig = field(default_factory=LoaderConfig, metadata=NOT_IDENTITY)
    """Reading."""
    watch: MonitorConfig = field(default_factory=MonitorConfig, metadata=NOT_IDENTITY)
    """Where numbers go."""
    scale: ScaleConfig = field(default_factory=ScaleConfig, metadata=NOT_IDENTITY)
    """Workers."""

    def check_common(self) -> None:
        """Raise InputError for a common field that cannot be."""
        self.loader.check()
        self.watch.check()
        self.speed.check(self.scale.num_workers)


def run_once(
    stage: str,
    config: TrainingConfig,
    identity: Mapping[str, object],
    begin: Callable[[str], Worker],
) -> None:
    """Train and publish a checkpoint; a finished one is left alone, an interrupted run goes on.

    Args:
        stage: its name, for log lines.
        config: with absolute paths.
        identity: what decides the result beside the config; see `run_dir.claim`.
        begin: takes the output folder and returns what each worker does; called only when there is something to train.

    Raises:
        InputError: when the output folder holds the work of another config.
        JobError: when training failed.
    """
    out = run_dir.claim(config.out, config, identity)
    if checkpoint.exists(out):
        state.clear(out)
        log.info("%s: %s is complete already", stage, out)
        return
    launch(begin(out), config.scale, out, config.loader.ingest)
    if not checkpoint.exists(out):
        raise JobError(f"training ended without a checkpoint in {out}")
    state.clear(out)
    run_page.write(out)
    log.info("%s: wrote %s; its curves are in %s", stage, out, storage.join(out, run_page.PAGE_FILE))


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What a stage trains, and on what; the same on every rank."""

    network: Network  # with the weights it starts from
    clips: Clips  # to train on
    order: Order
    clip_s: float  # length that clips are cropped or padded to, seconds
    collate: Collate
    backward: Backward
    hooks: Hooks  # `keep` and `writers` are filled in
    lineage: Mapping[str, object]  # goes into the checkpoint
    trained_on: Sequence[str]  # keys of clips
    selected_on: Sequence[str] = ()  # keys of validation clips
    last_record: str = "epoch"  # name in the lineage of the record that the published weights have


def train(task: TrainingTask, config: TrainingConfig, out: str, context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint, and the best one each time that validation improves."""
    optim, on_gpu = config.optim, context.device.type == "cuda"
    prepared = performance.prepare(
        task.network, context.device, context.world_size, optim.precision, config.speed, bool(optim.ema_decay)
    )
    num_samples, ranks = round(task.clip_s * audio.SAMPLE_RATE_HZ), (context.rank, context.world_size)
    loader = Loader(
        task.clips, task.order, num_samples, *ranks, config.loader, context.load, pin=on_gpu, collate=task.collate
    )

    def save(uri: str, more: Mapping[str, object]) -> None:
        assert isinstance(prepared.evaluated, Network)
        checkpoint.save(uri, prepared.evaluated, {**task.lineage, **more}, task.trained_on, task.selected_on)

    def keep(record: EpochRecord) -> None:
        save(storage.join(out, BEST), {"epoch": record.as_json()})

    with ExitStack() as stack:
        hooks = dataclasses.replace(task.hooks, keep=keep)
        if context.leads:
            run_config = storage.plain(dataclasses.asdict(config))
            writers = stack.enter_context(closing(ScalarWriters(config.watch, out, run_config)))
            hooks = dataclasses.replace(hooks, writers=writers.all)
        history = fit(prepared, task.backward, loader, optim, context, out, hooks)
    if context.leads:
        state.record(out, history)
        save(out, {"skipped": history.skipped, task.last_record: history.epochs[-1].as_json()})


def one_pass(clips: Clips, optim: OptimConfig) -> Order:
    """Return the order of a run that takes every clip once in an epoch."""
    return Order(sizes=(len(clips.keys),), batch_size=optim.batch_size, seed=optim.seed)


def with_absolute_paths(config: Config, *names: str) -> Config:
    """Return a config in which these fields, a path or URI or a tuple of them, are absolute; what is empty stays so."""
    held: dict[str, Any] = {name: getattr(config, name) for name in names}
    for name, value in held.items():
        resolve = partial(checkpoint.resolve, flag=f"--{name.replace('_', '-')}")
        held[name] = tuple(map(resolve, value)) if isinstance(value, tuple) else value and resolve(value)
    return dataclasses.replace(config, **held)


def audio_revision(uri: str, wanted: AudioConfig) -> str | None:
    """Return the revision of the checkpoint that --init-audio names, or None. Raises InputError when it does not fit."""
    return checkpoint.describe_audio(uri, "--init-audio", wanted) if uri else None
