"""fit(): plain torch training that knows ranks only through a context, and resumes at the next step.

Random numbers of a step are keyed by (seed, step, rank), so a resumed run draws what an undisturbed one would.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cli import JobError
from train import optim, parallel
from train.data import Batch, Loader
from train.optim import OptimConfig
from train.state import TrainingState

log = logging.getLogger("train.loop")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where this process stands among the workers. The defaults are a single process."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """True on the one process that logs and saves."""
        return self.rank == 0


Loss = Callable[[nn.Module, Batch, int], Tensor]  # model, batch, step -> a scalar
Validate = Callable[[], dict[str, float]]  # called on every rank with the network in eval mode; the first value selects


def fit(
    model: nn.Module,
    loss: Loss,
    loader: Loader,
    config: OptimConfig,
    context: Context,
    out: str,
    validate: Validate | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, list[Any]]:
    """Train to the end of the schedule, from the newest state under `out` if there is one.

    Args:
        model: on the context's device, wrapped for distribution if there is more than one worker. It ends with the last
            weights, or with their average over the last epochs.
        loss: see `Loss`.
        loader: gives this rank's batches.
        config: optimiser and schedule.
        context: this process among the workers.
        out: folder that holds `training_state/` while the run is not finished.
        validate: measures the network after each epoch, and once more where weights were averaged.
        keep: called on the leading rank with the epoch's record when it is the best so far.

    Returns:
        The history: `loss` of every step on this rank, and a record of each epoch.

    Raises:
        JobError: when the loss is not finite; names the clips of the batch.
    """
    per_epoch = loader.order.steps_per_epoch
    steps = config.epochs * per_epoch
    network = parallel.unwrap(model)
    optimizer = optim.build(model.parameters(), config)
    state = TrainingState(network, optimizer, out)
    state.load()
    if not parallel.agree(state.step):
        raise JobError(f"the workers found different states under {out}; --out must be shared storage or a URI")
    if context.leads:
        log.info("%s at step %d of %d", "continues" if state.step else "starts", state.step, steps)
    model.train()
    progress = _Progress(steps, per_epoch, state.step)
    last_saved = time.monotonic()
    for step, batch in enumerate(loader.batches(state.step, steps), start=state.step):
        torch.manual_seed(hash((config.seed, step, context.rank)) % 2**63)
        for group in optimizer.param_groups:
            group["lr"] = optim.schedule(step, steps, config)
        with arithmetic(config, context):
            value = loss(model, batch, step)
        _step(model, optimizer, value, batch, step, config)
        state.step = step + 1
        state.history["loss"].append(round(value.item(), 6))
        ends_epoch = state.step % per_epoch == 0
        if (line := progress.add(state.history["loss"], ends_epoch)) and context.leads:
            log.info(line)
        if ends_epoch:
            _end_epoch(state, config, per_epoch, context, validate, keep)
        if context.leads and (
            time.monotonic() - last_saved > config.save_every_s or (ends_epoch and (validate or state.averaged))
        ):
            state.save()
            last_saved = time.monotonic()
    if state.averaged:
        network.load_state_dict(state.average)
        if validate is not None:
            state.history["epochs"].append({"epoch": "average", **_measured(network, validate, context)})
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise JobError("weights are not finite after the last step; try a lower --optim.lr")
    return state.history


def arithmetic(config: OptimConfig, context: Context) -> AbstractContextManager[Any]:
    """Return the context in which the model computes."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(context.device.type, dtype=torch.bfloat16)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, value: Tensor, batch: Batch, step: int, config: OptimConfig
) -> None:
    if not math.isfinite(value.item()):
        raise JobError(f"loss is {value.item()} at step {step}; the clips were {batch.keys}; try a lower --optim.lr")
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()


def _end_epoch(
    state: TrainingState,
    config: OptimConfig,
    per_epoch: int,
    context: Context,
    validate: Validate | None,
    keep: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Record an epoch: its mean loss, what validation measured; average the weights where it is time."""
    epoch = state.step // per_epoch
    losses = state.history["loss"][-per_epoch:]
    record: dict[str, Any] = {"epoch": epoch, "loss": round(sum(losses) / len(losses), 6)}
    if validate is not None:
        measured = _measured(state.model, validate, context)
        name = next(iter(measured))
        best = max((each[name] for each in state.history["epochs"]), default=-math.inf)
        record |= measured
        if keep is not None and measured[name] > best and context.leads:
            keep(record)
    state.history["epochs"].append(record)
    if epoch > config.epochs - config.swa_epochs:
        state.average_weights()


def _measured(network: nn.Module, validate: Validate, context: Context) -> dict[str, float]:
    network.eval()
    measured = {name: round(value, 6) for name, value in validate().items()}
    network.train()
    if context.leads:
        log.info("validation: %s", ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
    return measured


class _Progress:
    """Turn step losses into a plain line per epoch, or every ten seconds in long ones."""

    def __init__(self, steps: int, steps_per_epoch: int, first_step: int) -> None:
        self.steps, self.steps_per_epoch, self.first_step = steps, steps_per_epoch, first_step
        self.started = self.told = time.monotonic()

    def add(self, losses: list[float], ends_epoch: bool) -> str:
        """Return the line to tell after a step, or ''."""
        now, done = time.monotonic(), len(losses)
        if not (ends_epoch or now - self.told > 10):
            return ""
        self.told = now
        left_s = (now - self.started) / (done - self.first_step) * (self.steps - done)
        of_epoch = losses[(done - 1) // self.steps_per_epoch * self.steps_per_epoch :]
        mean = sum(of_epoch) / len(of_epoch)
        epoch = (done - 1) // self.steps_per_epoch + 1
        return f"epoch {epoch}, step {done} of {self.steps}: loss {mean:.3f}, {left_s:.0f} s left"
