"""Augmentation of training clips: masks on the log-mel, and mixtures of two clips. BLAT's recipe uses neither."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import mask_along_axis_iid

from pipeline.errors import InputError
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel


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


def add_spec_augment(network: nn.Module) -> None:
    """Register SpecAugment on the front ends of a network."""
    for module in network.modules():
        if isinstance(module, LogMel | EfficientLogMel | KaldiFbank):
            module.register_forward_hook(SpecAugment())


def mix(
    waveform: Tensor, num_samples: Tensor, texts: Sequence[str], share: float, seed: int
) -> tuple[Tensor, Tensor, list[str]]:
    """Add to some clips (B, T) int16 their neighbour in the batch, and to their captions its caption.

    Returns:
        Waveforms, true lengths (B,) and captions.
    """
    random = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(texts), generator=random) < share
    ratio = (0.3 + 0.4 * torch.rand(len(texts), generator=random)).to(waveform.device)[:, None]
    mixed = (ratio * waveform + (1 - ratio) * waveform.roll(-1, 0)).round().to(waveform.dtype)
    longer = torch.maximum(num_samples, num_samples.roll(-1))
    joined = [
        f"{text} and {neighbour}" if is_mixed else text
        for text, neighbour, is_mixed in zip(texts, [*texts[1:], *texts[:1]], chosen.tolist(), strict=True)
    ]
    return (
        torch.where(chosen.to(waveform.device)[:, None], mixed, waveform),
        torch.where(chosen.to(num_samples.device), longer, num_samples),
        joined,
    )


def mixup(
    waveform: Tensor, num_samples: Tensor, target: Tensor, alpha: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each clip (B, T) int16 and its labels (B, C) with its neighbour in the batch, by a share from Beta(alpha, alpha).

    Returns:
        Waveforms, true lengths (B,) and labels. Source: Zhang et al. 2018, arXiv 1710.09412.
    """
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(waveform))).float()
    share = torch.maximum(share, 1 - share).to(waveform.device)[:, None]  # the clip is the louder one in its row
    mixed = (share * waveform + (1 - share) * waveform.roll(-1, 0)).round().to(waveform.dtype)
    return mixed, torch.maximum(num_samples, num_samples.roll(-1)), share * target + (1 - share) * target.roll(-1, 0)
