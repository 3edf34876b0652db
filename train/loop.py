"""fit(): plain torch training that knows ranks only through a context, and resumes at the next step.

Random numbers of a step are keyed by (seed, step, rank), so a resumed run draws what an undisturbed one would.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pipeline import storage
from pipeline.cli import JobError
from train import parallel
from train.data import Batch, Loader

log = logging.getLogger("train.loop")
STATE_FILE = "state.json"


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule: AdamW, linear warm-up, half-cosine to zero."""

    epochs: int = 20
    """Passes over the data."""
    batch_size: int = 128
    """Clips per step over all workers together."""
    lr: float = 1e-4
    """Peak learning rate."""
    warmup_fraction: float = 0.1
    """Share of the steps with a rising learning rate."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    save_every_s: float = 60.0
    """Seconds between saved states; what an interruption can cost at most."""
    seed: int = 0
    """Seed of initial weights, order, crops, caption choice and dropout."""


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


Loss = Callable[[nn.Module, Batch], Tensor]


def fit(model: nn.Module, loss: Loss, loader: Loader, config: OptimConfig, context: Context, out: str) -> float | None:
    """Train to the end of the schedule, from the newest state under `out` if there is one.

    Args:
        model: on the context's device, wrapped for distribution if there is more than one worker.
        loss: maps (model, batch) to a scalar.
        loader: gives this rank's batches.
        config: optimiser and schedule.
        context: this process among the workers.
        out: folder that holds `training_state/` while the run is not finished.

    Returns:
        The mean loss of the last epoch on this rank; None when no step was left.

    Raises:
        JobError: when the loss is not finite; names the clips of the batch.
    """
    steps = config.epochs * loader.order.steps_per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    state = _State(model, optimizer, out)
    step = state.load()
    if not parallel.agree(step):
        raise JobError(f"the workers found different states under {out}; --out must be shared storage or a URI")
    if context.leads:
        log.info("%s at step %d of %d", "continues" if step else "starts", step, steps)
    model.train()
    progress = _Progress(steps, loader.order.steps_per_epoch, step)
    last_saved = time.monotonic()
    for step, batch in enumerate(loader.batches(step, steps), start=step):  # noqa: B020
        torch.manual_seed(hash((config.seed, step, context.rank)) % 2**63)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, steps, config.warmup_fraction)
        value = loss(model, batch)
        if not math.isfinite(value.item()):
            raise JobError(
                f"loss is {value.item()} at step {step}; the clips were {batch.keys}; try a lower --optim.lr"
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        if (line := progress.add(step, value.item())) and context.leads:
            log.info(line)
        if context.leads and time.monotonic() - last_saved > config.save_every_s:
            state.save(step + 1)
            last_saved = time.monotonic()
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise JobError("weights are not finite after the last step; try a lower --optim.lr")
    return progress.epoch_loss


def schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Return the share of the peak learning rate at a step: linear up, then half a cosine down to 0."""
    warmup = max(1, round(steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def finish(out: str) -> None:
    """Drop the training state of a run whose checkpoint is published."""
    storage.remove(storage.join(out, "training_state"))


class _State:
    """Weights and optimiser moments of an unfinished run, without pickle."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, out: str) -> None:
        self.model, self.optimizer = parallel.unwrap(model), optimizer
        self.folder = storage.join(out, "training_state")
        self.previous = ""

    def save(self, step: int) -> None:
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"optimizer.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
        tensors |= {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        name = f"{step:08d}.safetensors"
        storage.publish(storage.join(self.folder, name), save_tensors({k: v.cpu() for k, v in tensors.items()}))
        storage.publish_json(storage.join(self.folder, STATE_FILE), {"step": step, "tensors": name})
        if self.previous:
            storage.remove(storage.join(self.folder, self.previous))
        self.previous = name
        log.info("saved the state after step %d", step)

    def load(self) -> int:
        marker = storage.join(self.folder, STATE_FILE)
        if not storage.exists(marker):
            return 0
        about: dict[str, Any] = json.loads(storage.read(marker))
        tensors = load_tensors(storage.read(storage.join(self.folder, about["tensors"])))
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, field = name.split(".")
                moments.setdefault(int(index), {})[field] = value
        self.previous = about["tensors"]
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        return int(about["step"])


class _Progress:
    """Turn step losses into a plain line per epoch, or every ten seconds in long ones."""

    def __init__(self, steps: int, steps_per_epoch: int, first_step: int) -> None:
        self.steps, self.steps_per_epoch, self.first_step = steps, steps_per_epoch, first_step
        self.started = self.told = time.monotonic()
        self.losses: list[float] = []
        self.epoch_loss: float | None = None

    def add(self, step: int, loss: float) -> str:
        self.losses.append(loss)
        ends_epoch, now = (step + 1) % self.steps_per_epoch == 0, time.monotonic()
        self.epoch_loss = mean = sum(self.losses) / len(self.losses)
        if not (ends_epoch or now - self.told > 10):
            return ""
        self.told = now
        done = step + 1 - self.first_step
        left_s = (now - self.started) / done * (self.steps - step - 1)
        line = f"epoch {step // self.steps_per_epoch + 1}, step {step + 1} of {self.steps}: "
        line += f"loss {mean:.3f}, {left_s:.0f} s left"
        if ends_epoch:
            self.losses = []
        return line
