"""A loss that explodes, or a loss or gradient that is not finite, never reaches the weights.

Where the optimizer is fused, the GPU itself decides: its step does nothing after a bad loss, by the mechanism of torch's
GradScaler (`found_inf`), and nothing does after it. The host reads the loss while the next step runs, and stops the run
before it publishes anything. Elsewhere the host reads the loss before the optimizer's step.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import JobError

LOSS_WINDOW = 100  # steps whose mean loss an explosion is measured against
MAX_FLOAT32 = torch.finfo(torch.float32).max


class Guarded(NamedTuple):
    """The loss of a step on its way to the host."""

    value: Tensor  # (2,) in host memory: the loss, and 1 where it is bad; on a GPU valid when the step is over
    usual: float  # mean loss before, 0 at the start
    explodes_above: float


class LossGuard:
    """Judges the loss of each step against those before."""

    def __init__(self, optimizer: torch.optim.Optimizer, explosion: float, on_device: bool) -> None:
        """Take the optimizer, and how many times the usual loss is an explosion.

        Args:
            optimizer: of the run; fused where it is `on_device` that decides.
            explosion: see `OptimConfig`.
            on_device: leave the decision to the device; the host reads losses later.
        """
        self.optimizer, self.explosion, self.on_device = optimizer, explosion, on_device
        self.bad: Tensor | None = None  # 1 from the first bad loss on; float32, on the device

    def admit(self, loss: Tensor, gradient_norm: Tensor, history: Sequence[float]) -> Guarded:
        """Judge a loss and the norm of its gradient, both scalars, before the optimizer's step.

        `history` are the losses that the host has read.
        """
        before = history[-LOSS_WINDOW:]
        usual = sum(before) / max(1, len(before))
        limit = max(1.0, self.explosion * usual) if len(before) == LOSS_WINDOW else MAX_FLOAT32
        loss = loss.float()
        bad = (~(loss.isfinite() & (loss <= limit) & gradient_norm.isfinite())).float()
        if self.on_device:
            self.bad = bad if self.bad is None else torch.maximum(self.bad, bad)
            self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        value = torch.stack([loss, bad])
        if value.device.type == "cuda":
            value = torch.empty(2, pin_memory=True).copy_(value, non_blocking=self.on_device)
        return Guarded(value, usual, limit)


def read(guarded: Guarded, step: int, keys: Sequence[str], texts: Sequence[str], uri: str) -> float:
    """Return the loss of a step that is over.

    Raises:
        JobError: when it is bad; names the clips, which are then written to `uri` with their captions.
    """
    value, bad = guarded.value.tolist()
    if not bad:
        return float(value)
    pairs = dict(zip(keys, texts, strict=True))
    storage.publish_json(uri, {"step": step, "loss": str(value), "mean_loss_before": guarded.usual, "clips": pairs})
    explodes = value > guarded.explodes_above and guarded.explodes_above < MAX_FLOAT32
    name = "loss" if explodes or not math.isfinite(value) else "gradient is not finite, the loss"
    what = f"{name} is {value} at step {step}" + (f", {guarded.usual:.3f} in the mean before" if explodes else "")
    raise JobError(f"{what}; the clips were {keys}, see {uri}; try a lower --optim.lr")
