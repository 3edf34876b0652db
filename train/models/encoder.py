"""What every audio encoder is: waveform -> frame embeddings with their mask, and one clip embedding.

Shapes: B = clips, T = samples, S = frame embeddings in time, D = embedding size.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.models import frontend


class AudioFeatures(NamedTuple):
    """What an audio encoder returns."""

    frames: Tensor  # (B, S, D)
    num_frames: Tensor  # (B,) valid frames of each clip, at least 1
    clip: Tensor  # (B, D)

    @property
    def mask(self) -> Tensor:
        """(B, S) bool: True where a frame is real."""
        return frame_mask(self.num_frames, self.frames.shape[1])


class AudioEncoder(nn.Module):
    """Base of the encoders: rates and lengths are brought in order here, the subclass sees float32 at its own rate."""

    sample_rate_hz: int
    embedding_dim: int  # D, of frames and clip alike
    frozen = False
    only_for_clip: tuple[str, ...] = ()  # modules that the frame embeddings do without

    def forward(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> AudioFeatures:
        """Embed zero-padded clips.

        Args:
            waveform: (B, T) int16, or float in [-1, 1].
            num_samples: (B,) true lengths before padding, in T.
            sample_rate_hz: rate of `waveform`, resampled on its device; the encoder's own when left out.
        """
        rate_hz = sample_rate_hz or self.sample_rate_hz
        return self.encode(*frontend.prepare(waveform, num_samples, rate_hz, self.sample_rate_hz))

    def encode(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Embed float32 clips (B, T) at the encoder's own rate."""
        raise NotImplementedError

    def freeze(self) -> Self:
        """Fix weights and BatchNorm statistics for good; dropout stays on in train mode, as in the captioner's recipe."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; BatchNorm of a frozen encoder stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if self.frozen and isinstance(module, _BatchNorm):
                module.eval()
        return self


def frame_mask(num_frames: Tensor, size: int) -> Tensor:
    """Return (B, size) bool: True where a frame is real, False where it is padding."""
    return torch.arange(size, device=num_frames.device)[None, :] < num_frames[:, None]
