"""CNN14 of PANNs at any width and depth: log-mel -> frame and clip embeddings.

Shapes: B = clips, T = samples, F = mel frames, M = mel bins, S = frame embeddings in time, D = embedding size.
Architecture and constants: Kong et al., arXiv 1912.10211, and the released BLAT code; parameter names are BLAT's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.encoders.configs import Cnn14Config
from train.models.encoders.encoder import AudioEncoder, AudioFeatures, as_image, frame_mask
from train.models.encoders.frontend import LogMel


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F, M) to (B, C', F, M)."""
        x = nnf.relu_(self.bn1(self.conv1(x)))
        return nnf.relu_(self.bn2(self.conv2(x)))


class Cnn14(AudioEncoder):
    """Waveform -> frame embeddings and one clip embedding of size `embedding_dim`."""

    only_for_clip = ("fc1",)

    def __init__(self, config: Cnn14Config) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz, self.embedding_dim = config.sample_rate_hz, config.channels[-1]
        self.melspec_extractor = LogMel(config.sample_rate_hz, config.hop_samples, config.num_mels)
        self.bn0 = nn.BatchNorm2d(config.num_mels)
        widths = (1, *config.channels)
        self.num_blocks = len(config.channels)
        for i in range(self.num_blocks):
            setattr(self, f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1]))
        self.fc1 = nn.Linear(self.embedding_dim, self.embedding_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def downsampling(self) -> int:
        """Mel frames per frame embedding."""
        return int(2 ** (self.num_blocks - 1))

    def valid_frames(self, num_samples: Tensor) -> Tensor:
        """Return how many frame embeddings (B,) a clip of `num_samples` (B,) really fills; at least one."""
        mel_frames = num_samples // self.config.hop_samples + 1
        return (mel_frames // self.downsampling).clamp(min=1)

    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-mel (B, F, M) and how many frame embeddings a clip fills; see `AudioEncoder.front_end`."""
        hop = self.config.hop_samples
        # T samples give T // hop + 1 mel frames, and the pooling needs `downsampling` of them for one frame embedding.
        min_samples = max((self.downsampling - 1) * hop, LogMel.MIN_SAMPLES)
        if waveform.shape[1] < min_samples:  # the released model fails on such a clip; padding is ours
            waveform = nnf.pad(waveform, (0, max(self.downsampling * hop, min_samples) - waveform.shape[1]))
        return self.melspec_extractor(waveform).transpose(1, 2), self.valid_frames(num_samples)

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """See `AudioEncoder.network`."""
        x = self.bn0(features.transpose(1, 2)[..., None]).transpose(1, 3)  # (B, 1, F, M), normalised per mel bin
        x = as_image(x, next(self.get_submodule("conv_block1").parameters()))
        for i in range(self.num_blocks):
            x = getattr(self, f"conv_block{i + 1}")(x)
            if i < self.num_blocks - 1:
                x = nnf.avg_pool2d(x, 2)
            x = nnf.dropout(x, self.config.block_dropout, self.training)
        frames = x.mean(dim=3).transpose(1, 2)  # (B, S, D)
        num_frames = num_frames.clamp(max=frames.shape[1])
        return AudioFeatures(frames, num_frames, self._pool(frames, num_frames))

    def embed_frames(self, frames: Tensor) -> Tensor:
        """See `AudioEncoder.embed_frames`; mean and maximum of one frame are the frame."""
        return self._embed(2 * frames)

    def frame_edges_s(self, count: int) -> Tensor:
        """See `AudioEncoder.frame_edges_s`."""
        return torch.arange(count + 1) * (self.downsampling * self.config.hop_samples / self.sample_rate_hz)

    def _pool(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        valid = frame_mask(num_frames, frames.shape[1])[..., None]  # (B, S, 1)
        mean = (frames * valid).sum(dim=1) / num_frames[:, None]
        peak = frames.masked_fill(~valid, float("-inf")).amax(dim=1)
        return self._embed(mean + peak)

    def _embed(self, pooled: Tensor) -> Tensor:
        x = nnf.dropout(pooled, self.config.clip_dropout, self.training)
        return nnf.dropout(nnf.relu_(self.fc1(x)), self.config.clip_dropout, self.training)
