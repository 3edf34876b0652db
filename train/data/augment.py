"""Augmentation of training clips: masks on the log-mel, and mixtures of two clips. BLAT's recipe uses neither."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import mask_along_axis_iid

from pipeline.errors import InputError
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel
from train.models.encoders.htsat import ClapMel


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training clips; validation clips stay as they are."""

    spec_augment: bool = False
    """Blank two stripes of up to 64 frames and two of up to 8 mel bins of each clip (Park et al. 2019; widths of PANNs)."""
    mix_fraction: float = 0.0
    """Share of the pairs to which another one is added: waveforms in a ratio from 0.3 to 0.7, captions joined by `and`
    (MixGen, Hao et al. 2023, arXiv 2206.08358)."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be."""
        if not 0 <= self.mix_fraction <= 1:
            raise InputError("--augment.mix-fraction", self.mix_fraction, "use a share from 0 to 1")


class SpecAugment:
    """A forward hook of a front end: it sets stripes of the log-mel to zero in train mode, others for each clip."""

    STRIPES, FRAMES, BINS = 2, 64, 8

    def __call__(self, module: nn.Module, _inputs: object, mel: Tensor) -> Tensor:
        """Return the masked log-mel: (B, F, M) of KaldiFbank, (B, M, F) of other front ends."""
        if not module.training:
            return mel
        widths = (self.FRAMES, self.BINS) if isinstance(module, KaldiFbank) else (self.BINS, self.FRAMES)
        for axis, width in enumerate(widths, start=1):
            for _ in range(self.STRIPES):
                mel = mask_along_axis_iid(mel, min(width, mel.shape[axis]), 0.0, axis)
        return mel


def add_spec_augment(network: nn.Module, flag: str) -> None:
    """Register SpecAugment on the front ends of a network. Raises InputError, naming the flag, when none has a mel."""
    mels = [each for each in network.modules() if isinstance(each, LogMel | EfficientLogMel | KaldiFbank | ClapMel)]
    if not mels:
        raise InputError(flag, True, "the audio encoder takes the waveform and has no mel; leave it out")
    for module in mels:
        module.register_forward_hook(SpecAugment())


class Mixture(NamedTuple):
    """Which clips of a batch get their neighbour added, drawn before the clips are on a device."""

    chosen: Tensor  # (B,) bool
    ratio: Tensor  # (B,) float32: the clip's own part of the sum


def draw_mixture(count: int, share: float, seed: int) -> Mixture:
    """Draw for `count` clips: a share of them is mixed."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.rand(count, generator=random) < share
    return Mixture(chosen, 0.3 + 0.4 * torch.rand(count, generator=random))


def mix_texts(texts: Sequence[str], chosen: Tensor) -> list[str]:
    """Join the captions of the chosen clips (B,) with those of their neighbours."""
    return [
        f"{text} and {neighbour}" if is_mixed else text
        for text, neighbour, is_mixed in zip(texts, [*texts[1:], *texts[:1]], chosen.tolist(), strict=True)
    ]


def mix(waveform: Tensor, num_samples: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Add to the chosen clips (B, T) int16 their neighbour in the batch; all tensors are on one device.

    Returns:
        Waveforms and true lengths (B,).
    """
    chosen, ratio = mixture.chosen, mixture.ratio[:, None]
    mixed = (ratio * waveform + (1 - ratio) * waveform.roll(-1, 0)).round().to(waveform.dtype)
    longer = torch.maximum(num_samples, num_samples.roll(-1))
    return torch.where(chosen[:, None], mixed, waveform), torch.where(chosen, longer, num_samples)


def draw_mixup(count: int, alpha: float, seed: int) -> Tensor:
    """Draw for `count` clips their own part in a mixture, (B,) float32 from Beta(alpha, alpha); at least a half."""
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()
    return torch.maximum(share, 1 - share)


def mixup(waveform: Tensor, num_samples: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each clip (B, T) int16 and its labels (B, C) with its neighbour in the batch; its own part is share (B,).

    Returns:
        Waveforms, true lengths (B,) and labels. Source: Zhang et al. 2018, arXiv 1710.09412.
    """
    share = share[:, None]
    mixed = (share * waveform + (1 - share) * waveform.roll(-1, 0)).round().to(waveform.dtype)
    return mixed, torch.maximum(num_samples, num_samples.roll(-1)), share * target + (1 - share) * target.roll(-1, 0)
