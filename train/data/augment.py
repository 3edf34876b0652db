"""Augmentations of training clips: masks on the log-mel, and pairs mixed into one. Both are off in BLAT's recipe."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to training clips, never to evaluated ones."""

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
    """Blanks stripes of a log-mel in train mode; to be hung on a front end as a forward hook."""

    STRIPES, FRAMES, BINS = 2, 64, 8

    def __call__(self, module: nn.Module, _inputs: object, mel: Tensor) -> Tensor:
        """Return the log-mel of KaldiFbank (B, F, M), or of another front end (B, M, F), with its stripes blank."""
        if not module.training:
            return mel
        frames = isinstance(module, KaldiFbank)
        widths = (self.FRAMES, self.BINS) if frames else (self.BINS, self.FRAMES)
        hidden = self._stripes(mel, 1, widths[0])[:, :, None] | self._stripes(mel, 2, widths[1])[:, None, :]
        return mel.masked_fill(hidden, 0.0)

    def _stripes(self, mel: Tensor, dim: int, width: int) -> Tensor:
        """Return (B, size of `dim`) bool: True inside the stripes drawn for each clip."""
        size = mel.shape[dim]
        places = torch.arange(size, device=mel.device)
        hidden = torch.zeros(len(mel), size, dtype=torch.bool, device=mel.device)
        for _ in range(self.STRIPES):
            length = torch.randint(0, min(width, size), (len(mel), 1), device=mel.device)
            start = (torch.rand(len(mel), 1, device=mel.device) * (size - length)).long()
            hidden |= (places >= start) & (places < start + length)
        return hidden


def add_spec_augment(network: nn.Module) -> None:
    """Hang SpecAugment on the front ends of a network."""
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
    others = torch.arange(len(texts)).roll(-1)
    here = chosen.to(waveform.device)
    mixed = (ratio * waveform + (1 - ratio) * waveform[others.to(waveform.device)]).round().to(waveform.dtype)
    longer = torch.maximum(num_samples, num_samples[others.to(num_samples.device)])
    joined = [
        f"{text} and {texts[other]}" if taken else text
        for text, other, taken in zip(texts, others.tolist(), chosen.tolist(), strict=True)
    ]
    return (
        torch.where(here[:, None], mixed, waveform),
        torch.where(here.to(num_samples.device), longer, num_samples),
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
    share = torch.maximum(share, 1 - share).to(waveform.device)[:, None]  # a clip stays the louder one of its own row
    mixed = (share * waveform + (1 - share) * waveform.roll(-1, 0)).round().to(waveform.dtype)
    return mixed, torch.maximum(num_samples, num_samples.roll(-1)), share * target + (1 - share) * target.roll(-1, 0)
