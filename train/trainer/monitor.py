"""What a run reports while it goes: a line every ten seconds, and the same numbers to TensorBoard, W&B, MLflow and Ray.

Names are the field's (open_clip): train/loss, train/lr, train/logit_scale, train/samples_per_second_per_gpu,
train/batch_time, train/mfu; val/<metric> of what is held out. Seconds of a step, which add up to train/batch_time:
train/data_time waits for a batch, train/copy_time for its copy to the device, train/compute_time computes, and
train/rest_time is everything else, such as logging and saving. On a GPU the gaps between its kernels count as compute, also
where it waits for this process to launch the next. Validation is in none of them.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import storage
from pipeline.errors import InputError
from train.trainer.step_clock import StepTimes

log = logging.getLogger(__name__)
LOG_EVERY_S = 10.0
TENSORBOARD_DIR = "tensorboard"
ScalarWriter = Callable[[Mapping[str, float], int], None]  # scalars by name, step


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """Where the numbers of a run go. They never change the run."""

    tensorboard: bool = True
    """Write <out>/tensorboard for `tensorboard --logdir`."""
    wandb: str = ""
    """Project of Weights & Biases to log to; WANDB_* variables hold the key and the mode. Needs blat-ray[tracking]."""
    mlflow: str = ""
    """Experiment of MLflow to log to; MLFLOW_TRACKING_URI says where. Needs blat-ray[tracking]."""

    def check(self) -> None:
        """Raise InputError when a library that is asked for is not here."""
        for name, value in (("wandb", self.wandb), ("mlflow", self.mlflow)):
            if value:
                try:
                    __import__(name)
                except ImportError:
                    remedy = "needs `pip install -e '.[tracking]'`"
                    raise InputError(f"--watch.{name}", value, remedy) from None


@dataclass(frozen=True, kw_only=True)
class ThroughputSpec:
    """What the speed of a run is measured against."""

    steps: int
    steps_per_epoch: int
    batch_size: int
    world_size: int
    flops_per_pair: float = 0.0  # of forward and backward; 0 is not known
    peak_flops: float = 0.0  # of one GPU, per second; 0 is not known


class Monitor:
    """Collects the numbers of steps, and logs and writes them at intervals; silent on all ranks but the leading one."""

    def __init__(
        self,
        throughput: ThroughputSpec,
        writers: Sequence[ScalarWriter],
        rows: list[dict[str, float]],
        first_step: int,
        leads: bool,
    ) -> None:
        """Take the rows of the run so far; new ones are added to them."""
        self.throughput, self.writers, self.rows, self.leads = throughput, writers, rows, leads
        self.begun, self.first_step = time.monotonic(), first_step
        self._restart(self.begun)

    def _restart(self, now: float) -> None:
        self.since, self.count, self.losses, self.times = now, 0, 0.0, StepTimes(0.0, 0.0, 0.0)

    def step(
        self, done: int, loss: float, lr: float, times: StepTimes, extras: Callable[[], Mapping[str, float]]
    ) -> None:
        """Take a step in; `done` steps are over now. `extras` are asked for when a line is written."""
        self.count, self.losses = self.count + 1, self.losses + loss
        self.times = StepTimes(*(so_far + more for so_far, more in zip(self.times, times, strict=True)))
        now = time.monotonic()
        ends_epoch = done % self.throughput.steps_per_epoch == 0
        if not self.leads or not (ends_epoch or now - self.since > LOG_EVERY_S):
            return
        row = self._row(now - self.since, lr, extras())
        self.rows.append({"step": done, **row})
        left_s = (now - self.begun) / (done - self.first_step) * (self.throughput.steps - done)
        log.info("%s", self._line(done, row, left_s))
        self.write(row, done)
        self._restart(now)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the speed what happens inside."""
        began = time.monotonic()
        yield
        self.since += time.monotonic() - began

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Give scalars to every writer."""
        for writer in self.writers:
            writer(scalars, step)

    def _row(self, elapsed_s: float, lr: float, extras: Mapping[str, float]) -> dict[str, float]:
        pairs_per_s = self.count * self.throughput.batch_size / elapsed_s / self.throughput.world_size
        row = {
            "train/loss": self.losses / self.count,
            "train/lr": lr,
            **{f"train/{name}": value for name, value in extras.items()},
            "train/samples_per_second_per_gpu": pairs_per_s,
            "train/batch_time": elapsed_s / self.count,
            **{f"train/{name}_time": seconds / self.count for name, seconds in self.times._asdict().items()},
            "train/rest_time": max(0.0, elapsed_s - sum(self.times)) / self.count,
        }
        if self.throughput.peak_flops and self.throughput.flops_per_pair:
            row["train/mfu"] = pairs_per_s * self.throughput.flops_per_pair / self.throughput.peak_flops
        return {name: float(f"{value:.6g}") for name, value in row.items()}

    def _line(self, done: int, row: Mapping[str, float], left_s: float) -> str:
        epoch = (done - 1) // self.throughput.steps_per_epoch + 1
        parts_of_time = [row[f"train/{name}_time"] for name in (*StepTimes._fields, "rest")]
        data, copy, compute, rest = percentages(parts_of_time)
        parts = [
            f"epoch {epoch}, step {done} of {self.throughput.steps}: loss {row['train/loss']:.3f}",
            f"lr {row['train/lr']:.1e}",
            *([f"scale {row['train/logit_scale']:.1f}"] if "train/logit_scale" in row else []),
            f"{row['train/samples_per_second_per_gpu']:.1f} samples/s per worker",
            f"data {data} % + copy {copy} % + compute {compute} % + rest {rest} %",
            *([f"MFU {100 * row['train/mfu']:.1f} %"] if "train/mfu" in row else []),
            f"{left_s:.0f} s left",
        ]
        return ", ".join(parts)


def percentages(parts: Sequence[float]) -> list[int]:
    """Return parts of a whole in whole percent that add up to 100; each is off by less than one."""
    total = max(sum(parts), 1e-9)
    ends = [round(100 * sum(parts[: i + 1]) / total) for i in range(len(parts) - 1)]
    return [end - begin for begin, end in zip([0, *ends], [*ends, 100], strict=True)]


class ScalarWriters:
    """The places of one run that take scalars; closed when it ends, even by an error."""

    def __init__(self, config: MonitorConfig, out: str, run_config: Mapping[str, object]) -> None:
        """Open them; `run_config` is for those that keep it."""
        self.all: list[ScalarWriter] = []
        self.closers: list[Callable[[], None]] = []
        if config.tensorboard:
            self._tensorboard(out)
        if config.wandb:
            self._wandb(config.wandb, out, run_config)
        if config.mlflow:
            self._mlflow(config.mlflow, out, run_config)

    def close(self) -> None:
        """Close all."""
        for close in self.closers:
            close()

    def _tensorboard(self, out: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        remote = "://" in out
        folder = tempfile.mkdtemp(prefix="blat-tensorboard-") if remote else storage.join(out, TENSORBOARD_DIR)
        writer = SummaryWriter(folder, flush_secs=10)

        def write(scalars: Mapping[str, float], step: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

        def close() -> None:
            writer.close()
            for path in Path(folder).iterdir() if remote else ():
                storage.publish(storage.join(out, TENSORBOARD_DIR, path.name), path.read_bytes())

        self.all.append(write)
        self.closers.append(close)

    def _wandb(self, project: str, out: str, run_config: Mapping[str, object]) -> None:
        import wandb

        run = wandb.init(project=project, name=out.rpartition("/")[2], config=dict(run_config))
        self.all.append(lambda scalars, step: run.log(dict(scalars), step=step))
        self.closers.append(run.finish)

    def _mlflow(self, experiment: str, out: str, run_config: Mapping[str, object]) -> None:
        import mlflow

        mlflow.set_experiment(experiment)
        run = mlflow.start_run(run_name=out.rpartition("/")[2])
        mlflow.log_params({name: str(value)[:500] for name, value in run_config.items()})

        def write(scalars: Mapping[str, float], step: int) -> None:
            named = {name.replace("@", "_at_"): value for name, value in scalars.items()}  # MLflow takes no @
            mlflow.log_metrics(named, step=step, run_id=run.info.run_id)

        self.all.append(write)
        self.closers.append(mlflow.end_run)
