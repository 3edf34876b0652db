"""Optimiser and schedule of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule: linear warm-up, then half a cosine to zero or an exponential to the final rate."""

    epochs: int = 20
    """Passes over the data."""
    min_steps: int = 0
    """Add whole passes until there are so many steps: runs on parts of a dataset become as long as one on all of it."""
    batch_size: int = 128
    """Clips per step over all workers together."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW decouples the weight decay; Adam adds it to the gradient."""
    lr: float = 1e-4
    """Peak learning rate."""
    decay: Literal["cosine", "exponential"] = "cosine"
    """How the learning rate falls after the warm-up."""
    final_lr: float = 5e-7
    """Learning rate at the end of an exponential decay; the cosine ends at 0."""
    warmup_fraction: float = 0.1
    """Share of the steps with a rising learning rate."""
    weight_decay: float = 0.0
    """Weight decay."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the model; the weights are float32 either way."""
    swa_epochs: int = 0
    """Average weights and buffers after each of so many last epochs into the final model (SWA); 0 takes the last."""
    ema_decay: float = 0.0
    """Validate and publish an exponential moving average of the weights with this decay a step; 0 the weights themselves."""
    explosion: float = 10.0
    """Stop when the loss is above 1 and above so many times its mean over the last 100 steps."""
    save_every_s: float = 60.0
    """Seconds between saved states; what an interruption can cost at most."""
    save_every_steps: int = 0
    """Steps between saved states, beside those by time; 0 goes by time alone."""
    keep_states: int = 1
    """Saved states that are kept, the newest ones."""
    seed: int = 0
    """Seed of initial weights, order, crops, caption choice and dropout."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be."""
        if self.epochs < 1:
            raise InputError("--optim.epochs", self.epochs, "use 1 or more")
        if self.min_steps < 0:
            raise InputError("--optim.min-steps", self.min_steps, "use 0 or more")
        if not 0 < self.lr < math.inf:
            raise InputError("--optim.lr", self.lr, "use a number above 0")
        if not 0 <= self.warmup_fraction <= 1:
            raise InputError("--optim.warmup-fraction", self.warmup_fraction, "use a share from 0 to 1")
        if self.decay == "exponential" and not 0 < self.final_lr <= self.lr:
            raise InputError("--optim.final-lr", self.final_lr, f"use a number above 0, at most the peak of {self.lr}")
        if not 0 <= self.swa_epochs <= self.epochs:
            raise InputError("--optim.swa-epochs", self.swa_epochs, f"use 0 to the {self.epochs} epochs there are")
        if not 0 <= self.ema_decay < 1:
            raise InputError("--optim.ema-decay", self.ema_decay, "use a decay from 0 to below 1, such as 0.9999")
        if self.ema_decay and self.swa_epochs:
            raise InputError("--optim.ema-decay", self.ema_decay, "averages already; leave out --optim.swa-epochs")
        if self.keep_states < 1 or self.save_every_steps < 0:
            raise InputError("--optim.keep-states", self.keep_states, "keep 1 or more, saved every 0 or more steps")

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Return the passes over the data that a run makes."""
        return max(self.epochs, math.ceil(self.min_steps / steps_per_epoch))


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0


def build(groups: Sequence[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """Make the optimiser for all parameters that are trained; on a GPU fused into a few kernels.

    AdamW leaves gains and biases (tensors of one dimension) undecayed; Adam decays all, as the released recipe does.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    made = []
    for group in groups:
        trained = [parameter for parameter in group.parameters if parameter.requires_grad]
        for decays in (True, False):
            chosen = [p for p in trained if (config.optimizer == "adam" or p.dim() > 1) is decays]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                made.append({"params": chosen, "weight_decay": decay, "lr_scale": group.lr_scale})
    return kind(made, lr=config.lr, fused=fuses(groups))


def fuses(groups: Sequence[Group]) -> bool:
    """Return whether an optimiser of these parameters is fused: on GPUs."""
    return all(p.device.type == "cuda" for group in groups for p in group.parameters)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the step of an optimiser is fused: then it does nothing where its `found_inf` is 1."""
    return bool(optimizer.defaults["fused"])


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of a step, each group's times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def schedule(step: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    if config.decay == "exponential":
        return exponential(step + 2, steps, config)
    warmup = max(1, round(steps * config.warmup_fraction))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def exponential(count: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate at a count of wsntxxn/AudioCaption's scheduler, which begins at 2 for the first step."""
    warmup = max(1, int(steps * config.warmup_fraction))
    if count <= warmup:
        return config.lr * count / warmup
    share = min(1.0, (count - warmup) / max(1, steps - warmup))
    return config.lr * (config.final_lr / config.lr) ** share
