"""fit(): plain torch training that knows ranks only through a context, and resumes at the next step.

Random numbers of a step are keyed by (seed, step, rank), so a resumed run draws what an undisturbed one would.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import JobError
from train import parallel
from train.data.loader import Batch, Load, Loader
from train.trainer import optim
from train.trainer.monitor import Monitor, ScalarWriter, ThroughputSpec
from train.trainer.optim import Group, OptimConfig
from train.trainer.performance import Prepared
from train.trainer.state import TrainingState

log = logging.getLogger(__name__)
LOOKED_BACK = 100  # steps whose mean loss tells what an explosion is
STOP = "stop"
StopSignal = Callable[[], str]


def no_stop_signal() -> str:
    """Tell that nothing is going to stop this process."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where this process stands among the workers. The defaults are a single process."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    notice: StopSignal = no_stop_signal  # why to save at once, or ''; STOP also ends the run
    load: Load | None = None  # decodes clips on other machines
    gauge: ScalarWriter | None = None  # takes scalars for the cluster's own metrics

    @property
    def leads(self) -> bool:
        """True on the one process that logs and saves."""
        return self.rank == 0


class Step(NamedTuple):
    """One step of a run."""

    number: int
    seed: int  # of what is random in it on this rank


class Stopped(JobError):
    """A run that was told to stop, and has saved its state."""


Backward = Callable[[nn.Module, Batch, Step], Tensor]  # adds gradients to the parameters; returns the loss, detached
Validate = Callable[[nn.Module], Mapping[str, float]]  # on every rank, in eval mode; the first value selects
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a stage adds to a run."""

    groups: tuple[Group, ...] = ()  # parameters with learning rates of their own; all alike when left out
    validate: Validate | None = None
    validate_every_steps: int = 0  # beside the end of each epoch
    keep: Keep | None = None  # called on the leading rank with the record when it is the best so far
    extras: Callable[[], Mapping[str, float]] = dict  # more numbers to tell
    sinks: tuple[ScalarWriter, ...] = ()
    flops_per_pair: float = 0.0
    peak_flops: float = 0.0


def fit(
    prepared: Prepared,
    backward: Backward,
    loader: Loader,
    config: OptimConfig,
    context: Context,
    out: str,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Train to the end of the schedule, from the newest state under `out` if there is one.

    Args:
        prepared: the model on the context's device. What is evaluated of it ends with the weights to publish.
        backward: see `Backward`.
        loader: gives this rank's batches.
        config: optimiser and schedule.
        context: this process among the workers.
        out: folder that holds `training_state/` while the run is not finished.
        hooks: see `Hooks`.

    Returns:
        The history: `loss` of every step, a record of each epoch, numbers of speed, clips that were skipped.

    Raises:
        JobError: when the loss is not finite or explodes; names the clips of the batch.
        Stopped: when the context's notice said so; the state is saved.
    """
    run = _Run(prepared, backward, loader, config, context, out, hooks or Hooks())
    try:
        return run.train()
    finally:
        run.state.close()


class _Run:
    def __init__(
        self,
        prepared: Prepared,
        backward: Backward,
        loader: Loader,
        config: OptimConfig,
        context: Context,
        out: str,
        hooks: Hooks,
    ) -> None:
        self.prepared, self.backward, self.loader = prepared, backward, loader
        self.config, self.context, self.out, self.hooks = config, context, out, hooks
        self.per_epoch = loader.order.steps_per_epoch
        self.steps = config.epochs * self.per_epoch
        groups = hooks.groups or (Group(list(prepared.network.parameters())),)
        self.optimizer = optim.build(groups, config)
        self.state = TrainingState(prepared.network, self.optimizer, out, config.keep_states)
        self.saved_at, self.last_handled = time.monotonic(), ""

    def train(self) -> dict[str, Any]:
        state = self.state
        state.load()
        if not parallel.agree(state.step):
            raise JobError(
                f"the workers found different states under {self.out}; --out must be shared storage or a URI"
            )
        if self.context.leads:
            log.info("%s at step %d of %d", "continues" if state.step else "starts", state.step, self.steps)
        self.prepared.model.train()
        self.watch = self._watch()
        for step, batch, waited_s in _timed(self.loader.batches(state.step, self.steps), state.step):
            lr = optim.schedule(step, self.steps, self.config)
            self._step(batch, step, lr)
            self.watch.step(state.step, state.history["loss"][-1], lr, waited_s, self.hooks.extras())
            self._measure()
            self._save()
        return self._end()

    def _watch(self) -> Monitor:
        pace = ThroughputSpec(
            steps=self.steps,
            steps_per_epoch=self.per_epoch,
            batch_size=self.config.batch_size,
            world_size=self.context.world_size,
            flops_per_pair=self.hooks.flops_per_pair,
            peak_flops=self.hooks.peak_flops,
        )
        sinks = [*self.hooks.sinks, *([self.context.gauge] if self.context.gauge else [])]
        told = self.state.history["steps"]
        return Monitor(pace, sinks if self.context.leads else [], told, self.state.step, self.context.leads)

    def _step(self, batch: Batch, step: int, lr: float) -> None:
        seed = hash((self.config.seed, step, self.context.rank)) % 2**62
        torch.manual_seed(seed)
        optim.set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        value = parallel.mean(self.backward(self.prepared.model, batch, Step(step, seed))).item()
        self._check(value, batch, step)
        nn.utils.clip_grad_norm_(self.prepared.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.state.step = step + 1
        self.state.history["loss"].append(round(value, 6))
        if self.config.ema_decay:
            self.state.average_weights(1 - self.config.ema_decay)

    def _check(self, value: float, batch: Batch, step: int) -> None:
        """Stop before a loss that is none, or that explodes, reaches the weights; write down what it came from."""
        before = self.state.history["loss"][-LOOKED_BACK:]
        usual = sum(before) / max(1, len(before))
        explodes = len(before) == LOOKED_BACK and value > max(1.0, self.config.explosion * usual)
        if math.isfinite(value) and not explodes:
            return
        uri = storage.join(self.out, f"bad_batch_{self.context.rank}.json")
        pairs = dict(zip(batch.keys, batch.texts, strict=True))
        storage.publish_json(uri, {"step": step, "loss": str(value), "mean_loss_before": usual, "clips": pairs})
        what = f"loss is {value} at step {step}" + (f", {usual:.3f} in the mean before" if explodes else "")
        raise JobError(f"{what}; the clips were {batch.keys}, see {uri}; try a lower --optim.lr")

    def _measure(self) -> None:
        """Validate where it is time; record an epoch; average the weights."""
        state, every = self.state, self.hooks.validate_every_steps
        ends_epoch = state.step % self.per_epoch == 0
        record: dict[str, Any] = {"step": state.step}
        if ends_epoch:
            losses = state.history["loss"][-self.per_epoch :]
            record = {"epoch": state.step // self.per_epoch, **record, "loss": round(sum(losses) / len(losses), 6)}
            for skipped in parallel.gather_objects(self.loader.skipped):
                state.history["skipped"] |= skipped
        if self.hooks.validate and (ends_epoch or (every and state.step % every == 0)):
            record |= self._validated()
        if len(record) > 1:
            state.history["epochs"].append(record)
        if ends_epoch and record["epoch"] > self.config.epochs - self.config.swa_epochs:
            state.average_weights()

    def _validated(self) -> dict[str, float]:
        """Measure what is held out, and keep the model when it is the best so far."""
        assert self.hooks.validate is not None
        measured = self._measured(self.prepared.evaluated_with(self.state.average if self.config.ema_decay else None))
        name = next(iter(measured))
        best = max((each[name] for each in self.state.history["epochs"] if name in each), default=-math.inf)
        if self.hooks.keep is not None and measured[name] > best and self.context.leads:
            self.hooks.keep({"epoch": self.state.step / self.per_epoch, "step": self.state.step, **measured})
        return measured

    def _measured(self, network: nn.Module) -> dict[str, float]:
        assert self.hooks.validate is not None
        network.eval()
        measured = {name: round(value, 6) for name, value in self.hooks.validate(network).items()}
        network.train()
        if self.context.leads:
            log.info("validation: %s", ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
            self.watch.tell({f"val/{name}": value for name, value in measured.items()}, self.state.step)
        return measured

    def _save(self) -> None:
        state, config, notice = self.state, self.config, self.context.notice()
        told = bool(notice) and notice != self.last_handled
        by_steps = config.save_every_steps and state.step % config.save_every_steps == 0
        by_event = state.step % self.per_epoch == 0 and (self.hooks.validate or config.swa_epochs)
        due = told or by_steps or by_event or time.monotonic() - self.saved_at > config.save_every_s
        if self.prepared.sharded:  # every rank holds a piece: all save when the leading one does
            due = bool(parallel.from_leader(int(bool(due)), self.context.device))
        if due and (self.context.leads or self.prepared.sharded):
            state.save(writes=self.context.leads)
            self.saved_at, self.last_handled = time.monotonic(), notice
        if told and self.context.leads:
            state.wait()
            log.info("saved after step %d because of a notice: %s", state.step, notice)
        if notice == STOP:
            raise Stopped(f"stopped after step {state.step}; the same command continues from there")

    def _end(self) -> dict[str, Any]:
        """Leave the weights to publish in what is evaluated, and return the history."""
        state = self.state
        state.wait()
        network = self.prepared.evaluated_with(state.average or None, for_good=True)
        if self.config.swa_epochs and self.hooks.validate:
            state.history["epochs"].append({"epoch": "average", "step": state.step, **self._measured(network)})
        if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
            raise JobError("weights are not finite after the last step; try a lower --optim.lr")
        return state.history


def _timed(batches: Iterator[Batch], first: int) -> Iterator[tuple[int, Batch, float]]:
    """Yield each batch with its step and the seconds that were waited for it."""
    step = first
    while True:
        began = time.monotonic()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield step, batch, time.monotonic() - began
        step += 1
