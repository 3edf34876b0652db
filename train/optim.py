"""Optimiser and schedule of a run."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pipeline.cli import InputError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule: linear warm-up, then half a cosine to zero or an exponential to the final rate."""

    epochs: int = 20
    """Passes over the data."""
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
    save_every_s: float = 60.0
    """Seconds between saved states; what an interruption can cost at most."""
    seed: int = 0
    """Seed of initial weights, order, crops, caption choice and dropout."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be."""
        if self.epochs < 1:
            raise InputError("--optim.epochs", self.epochs, "use 1 or more")
        if not 0 < self.lr < math.inf:
            raise InputError("--optim.lr", self.lr, "use a number above 0")
        if not 0 <= self.warmup_fraction <= 1:
            raise InputError("--optim.warmup-fraction", self.warmup_fraction, "use a share from 0 to 1")
        if self.decay == "exponential" and not 0 < self.final_lr <= self.lr:
            raise InputError("--optim.final-lr", self.final_lr, f"use a number above 0, at most the peak of {self.lr}")
        if not 0 <= self.swa_epochs <= self.epochs:
            raise InputError("--optim.swa-epochs", self.swa_epochs, f"use 0 to the {self.epochs} epochs there are")


def build(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """Make the optimiser for all parameters that are trained."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay)


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
