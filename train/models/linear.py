"""A linear layer fitted to its optimum: logistic regression over embeddings, one label per clip or several.

Shapes: N = clips, E = embedding size, C = classes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as nnf

Features = npt.NDArray[np.float32]
ITERATIONS = 300  # of L-BFGS at most; standardized embeddings need some tens


class Layer(NamedTuple):
    """A fitted layer over standardized embeddings."""

    mean: Tensor  # (E,)
    scale: Tensor  # (E,)
    weight: Tensor  # (C, E)
    bias: Tensor  # (C,)

    def scores(self, features: Features) -> npt.NDArray[np.float64]:
        """Return the logits (N, C) of embeddings (N, E)."""
        inputs = (torch.from_numpy(features).to(self.weight) - self.mean) / self.scale
        logits: npt.NDArray[np.float64] = nnf.linear(inputs, self.weight, self.bias).cpu().numpy()
        return logits

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the weight (C, E) and bias (C,) that give the same logits of embeddings as they are."""
        weight = self.weight / self.scale
        return weight, self.bias - weight @ self.mean


def fit(
    features: Features, truth: npt.NDArray[np.bool_], penalty: float, exclusive: bool, device: str = "cpu"
) -> Layer:
    """Minimize the mean cross-entropy plus `penalty` / 2 times the squared weights; the bias is free.

    Args:
        features: (N, E) float32.
        truth: (N, C) bool.
        penalty: above 0.
        exclusive: one label per clip (softmax), or any number (a sigmoid for each class).
        device: where to compute.
    """
    inputs = torch.from_numpy(features).to(device, torch.float64)
    mean, scale = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-6)
    inputs, target = (inputs - mean) / scale, torch.from_numpy(truth).to(inputs)
    weight = torch.zeros(target.shape[1], inputs.shape[1], dtype=inputs.dtype, device=device, requires_grad=True)
    bias = torch.zeros(target.shape[1], dtype=inputs.dtype, device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = nnf.linear(inputs, weight, bias)
        if exclusive:
            cost = nnf.cross_entropy(logits, target)
        else:
            cost = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1).mean()
        total: Tensor = cost + penalty / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[arg-type]
    return Layer(mean, scale, weight.detach(), bias.detach())
