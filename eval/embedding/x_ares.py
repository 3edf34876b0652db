"""How X-ARES probes an audio encoder on tasks with folds, such as ESC-50: a layer and nearest neighbours, on mean frames.

Source: X-ARES 2025, arXiv 2505.16369; github.com/jimbozhang/xares, src/xares/task.py, trainer.py and models/simple.py. Its
settings for ESC-50 are its defaults. It takes the epoch that is best on the tested fold; the last epoch is given beside it.
Shapes: N = clips, E = embedding size, C = classes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from eval.embedding.in_process import batches
from pipeline.audio import INT16_FULL_SCALE
from pipeline.errors import JobError
from pipeline.sources.clip import Clip

SEED = 42
EPOCHS, BATCH_SIZE, LR, LAST_LR = 10, 32, 1e-3, 1e-4
NEIGHBOURS, TEMPERATURE = 10, 0.07
SOURCE = "X-ARES 2025, arXiv 2505.16369; github.com/jimbozhang/xares"
PROBES = {
    "layer, best epoch": f"{SOURCE}, its MLP: LayerNorm and a linear layer, 10 epochs, the best one on the tested fold",
    "layer, last epoch": "the same, without a choice on the tested fold",
    "10 neighbours": f"{SOURCE}, its k-NN: cosines, weighted by a softmax of temperature 0.07",
}


def mean_frames(encoder: Callable[[Tensor], Tensor], rate_hz: int, clips: Sequence[Clip]) -> Tensor:
    """Return the means (N, E) over the frames of clips, one clip after another. Raises JobError for a clip without audio.

    Args:
        encoder: sounds (1, T) in [-1, 1] at the rate -> frames (1, S, E).
        rate_hz: of the sounds.
        clips: to be read.
    """
    missing: dict[str, str] = {}
    found = [
        encoder(torch.from_numpy(samples.astype(np.float32) / INT16_FULL_SCALE)[None]).mean(dim=1).float().cpu()
        for _, (samples,) in batches(clips, rate_hz, 1, missing)
    ]
    if missing:
        raise JobError(f"{len(missing)} clips can be read no more, such as {next(iter(missing))}")
    return torch.cat(found)


def probe(features: Tensor, target: Tensor, folds: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Return the scores (N, C) of the clips by each of `PROBES`, each clip tested by what the other folds taught.

    Args:
        features: (N, E).
        target: (N,) int64, the class of each clip.
        folds: (N,) their folds, at least two.
        num_classes: C.
    """
    found = {name: np.zeros((len(features), num_classes), np.float32) for name in PROBES}
    for fold in np.unique(folds):
        tested = torch.from_numpy(folds == fold)
        train = (features[~tested], target[~tested])
        best, last = _layer(*train, features[tested], target[tested], num_classes)
        for name, scores in zip(PROBES, (best, last, _neighbours(*train, features[tested], num_classes)), strict=True):
            found[name][tested.numpy()] = scores.numpy()
    return found


def _layer(inputs: Tensor, target: Tensor, tested: Tensor, truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the scores of the tested clips by the epoch that knows most of them, and by the last one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = nn.Sequential(nn.LayerNorm(inputs.shape[1]), nn.Linear(inputs.shape[1], num_classes))
        optimizer = torch.optim.Adam(layer.parameters(), lr=LR)
        by_epoch = []
        for epoch in range(EPOCHS):
            for group in optimizer.param_groups:
                group["lr"] = LAST_LR + (LR - LAST_LR) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
            for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
                optimizer.zero_grad()
                nnf.cross_entropy(layer(inputs[rows]), target[rows]).backward()
                optimizer.step()
            by_epoch.append(layer(tested).detach())
    hits = [int((scores.argmax(dim=1) == truth).sum()) for scores in by_epoch]
    return by_epoch[hits.index(max(hits))], by_epoch[-1]


def _neighbours(inputs: Tensor, target: Tensor, tested: Tensor, num_classes: int) -> Tensor:
    cosines = nnf.normalize(tested, dim=1) @ nnf.normalize(inputs, dim=1).T
    nearest = cosines.topk(min(NEIGHBOURS, len(inputs)), dim=1)
    weights = (nearest.values / TEMPERATURE).softmax(dim=1)
    return torch.zeros(len(tested), num_classes).scatter_add_(1, target[nearest.indices], weights)
