"""fit(): plain torch training that knows ranks only through a context, and resumes at the next step.

Random numbers of a step are keyed by (seed, step, rank), so a resumed run draws what an undisturbed one would.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import nn

from pipeline import storage
from pipeline.errors import JobError
from train import parallel
from train.data.loader import Batch, Loader
from train.data.prefetch import Prefetch
from train.trainer import loss_guard, optim
from train.trainer.context import STOP, Context
from train.trainer.history import EpochRecord, History
from train.trainer.hooks import Backward, Hooks
from train.trainer.loss_guard import Guarded, LossGuard
from train.trainer.monitor import Monitor, ThroughputSpec
from train.trainer.optim import Group, OptimConfig
from train.trainer.performance import Prepared
from train.trainer.state import TrainingState, whole
from train.trainer.step_clock import Laps, StepClock

log = logging.getLogger(__name__)


class Unread(NamedTuple):
    """A step that is launched, and whose loss the host has not read."""

    number: int
    lr: float
    keys: Sequence[str]  # of its clips
    texts: Sequence[str]
    loss: Guarded
    laps: Laps


class Stopped(JobError):
    """A run that was asked to stop, and has saved its state."""


def fit(
    prepared: Prepared,
    backward: Backward,
    loader: Loader,
    config: OptimConfig,
    context: Context,
    out: str,
    hooks: Hooks | None = None,
) -> History:
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
        The history of the whole run.

    Raises:
        JobError: when the loss is not finite or explodes; names the clips of the batch.
        Stopped: when the context's stop signal is STOP; the state is saved.
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
        self.epochs = config.num_epochs(self.per_epoch)
        self.steps = self.epochs * self.per_epoch
        groups = hooks.groups() if hooks.groups else (Group(list(prepared.network.parameters())),)
        self.optimizer = optim.build(groups, config)
        self.parameters = list(prepared.network.parameters())
        # of a sharded network the host decides: fused kernels take no flag of another layout
        on_device = optim.is_fused(self.optimizer) and not prepared.sharded
        self.guard = LossGuard(self.optimizer, config.explosion, on_device)
        self.late = 1 if on_device else 0  # steps after which a loss is read; those before are the same on all ranks
        self.unread: deque[Unread] = deque()
        self.clock, self.prefetch = StepClock(context.device), Prefetch(context.device)
        self.state = TrainingState(prepared.network, self.optimizer, out, config.keep_states)
        self.saved_at, self.last_handled = time.monotonic(), ""

    def train(self) -> History:
        state = self.state
        state.load()
        if not parallel.agree(state.step):
            remedy = "--out must be shared storage or a URI"
            raise JobError(f"the workers found different states under {self.out}; {remedy}")
        if self.context.leads:
            log.info("%s at step %d of %d", "continues" if state.step else "starts", state.step, self.steps)
        self.prepared.model.train()
        self.monitor = self._monitor()
        with closing(self.loader.batches(state.step, self.steps)) as batches:
            self.clock.start()
            for batch in batches:
                self.clock.lap()
                self._step(batch)
                self._read(but_newest=self.late)
                self._measure()
                self._save()
                self.clock.start()
        return self._end()

    def _monitor(self) -> Monitor:
        throughput = ThroughputSpec(
            steps=self.steps,
            steps_per_epoch=self.per_epoch,
            batch_size=self.config.batch_size,
            world_size=self.context.world_size,
            flops_per_pair=self.hooks.flops_per_pair,
            peak_flops=self.hooks.peak_flops,
        )
        writers = [*self.hooks.writers, *([self.context.gauge] if self.context.gauge else [])]
        rows, leads = self.state.history.steps, self.context.leads
        return Monitor(throughput, writers if leads else [], rows, self.state.step, leads)

    def _step(self, batch: Batch) -> None:
        step = self.loader.order.keyed(self.state.step, self.context.rank)
        batch = self.prefetch(batch)
        self.clock.lap()
        torch.manual_seed(step.seed)
        lr = optim.schedule(step.number, self.steps, self.config)
        optim.set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        value = parallel.mean(self.backward(self.prepared.model, batch, step))
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm))
        loss = self.guard.admit(value, norm, self.state.history.loss[: max(0, step.number - self.late)])
        if not self.guard.on_device:
            self._value(step.number, loss, batch.keys, batch.texts)  # a bad one ends the run here
        self.optimizer.step()
        self.state.step = step.number + 1
        if self.config.ema_decay:
            self.state.average_weights(self.config.ema_decay)
        self.clock.lap()
        self.unread.append(Unread(step.number, lr, batch.keys, batch.texts, loss, self.clock.laps))

    def _value(self, step: int, loss: Guarded, keys: Sequence[str], texts: Sequence[str]) -> float:
        uri = storage.join(self.out, f"bad_batch_{self.context.rank}.json")
        return loss_guard.read(loss, step, keys, texts, uri)

    def _read(self, but_newest: int = 0) -> None:
        """Take in the losses of the steps so far, but for the newest ones, which may still run on the GPU.

        What publishes weights, a state or a mean of losses reads all of them first.
        """
        while len(self.unread) > but_newest:
            step = self.unread.popleft()
            step.laps.wait()
            value = round(self._value(step.number, step.loss, step.keys, step.texts), 6)
            self.state.history.loss.append(value)
            times = self.clock.read(step.laps)
            self.monitor.step(step.number + 1, value, step.lr, times, self.hooks.extras)

    def _measure(self) -> None:
        """Validate where it is due; record an epoch; average the weights."""
        state, every = self.state, self.hooks.validate_every_steps
        ends_epoch = state.step % self.per_epoch == 0
        if ends_epoch:
            for skipped in parallel.gather_objects(self.loader.skipped):
                state.history.skipped |= skipped
        validates = self.hooks.validate and (ends_epoch or (every and state.step % every == 0))
        if ends_epoch or validates:
            self._read()
        metrics = self._validated() if validates else {}
        if ends_epoch:
            losses, epoch = state.history.loss[-self.per_epoch :], state.step // self.per_epoch
            mean = round(sum(losses) / len(losses), 6)
            state.history.epochs.append(EpochRecord(epoch=epoch, step=state.step, loss=mean, metrics=metrics))
            if epoch > self.epochs - self.config.swa_epochs:
                state.average_weights()
        elif metrics:
            state.history.epochs.append(EpochRecord(step=state.step, metrics=metrics))

    def _validated(self) -> dict[str, float]:
        """Measure the validation clips, and keep the model when it is the best so far."""
        state = self.state
        with self.monitor.paused():
            metrics = self._measured(self.prepared.evaluated_with(state.average if self.config.ema_decay else None))
            name = next(iter(metrics))
            best = max((each.metrics[name] for each in state.history.epochs if name in each.metrics), default=-math.inf)
            if self.hooks.keep is not None and metrics[name] > best and self.context.leads:
                self.hooks.keep(EpochRecord(epoch=state.step / self.per_epoch, step=state.step, metrics=metrics))
        return metrics

    def _measured(self, network: nn.Module) -> dict[str, float]:
        assert self.hooks.validate is not None
        parallel.share_buffers(network)  # or each rank measures with BatchNorm statistics of its own
        network.eval()
        metrics = {name: round(value, 6) for name, value in self.hooks.validate(network).items()}
        network.train()
        if self.context.leads:
            log.info("validation: %s", ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
            self.monitor.write({f"val/{name}": value for name, value in metrics.items()}, self.state.step)
        return metrics

    def _save(self) -> None:
        state, config, reason = self.state, self.config, self.context.stop_signal()
        by_signal = bool(reason) and reason != self.last_handled
        by_steps = config.save_every_steps and state.step % config.save_every_steps == 0
        by_event = state.step % self.per_epoch == 0 and (self.hooks.validate or config.swa_epochs)
        due = by_signal or by_steps or by_event or time.monotonic() - self.saved_at > config.save_every_s
        if self.prepared.sharded:  # every rank holds a piece: all save when the leading one does
            due = bool(parallel.from_leader(int(bool(due)), self.context.device))
        if due and (self.context.leads or self.prepared.sharded):
            self._read()
            state.save(writes=self.context.leads)
            self.saved_at, self.last_handled = time.monotonic(), reason
        if by_signal and self.context.leads:
            state.wait()
            log.info("saved after step %d: %s", state.step, reason)
        if reason == STOP:
            raise Stopped(f"stopped after step {state.step}; the same command continues from there")

    def _end(self) -> History:
        """Leave the weights to publish in what is evaluated, and return the history."""
        state = self.state
        state.wait()
        network = self.prepared.evaluated_with(state.average or None, for_good=True)
        if self.config.swa_epochs and self.hooks.validate:
            state.history.epochs.append(EpochRecord(epoch="average", step=state.step, metrics=self._measured(network)))
        if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
            raise JobError("weights are not finite after the last step; try a lower --optim.lr")
        return state.history
