"""EfficientAT's MobileNetV3 taggers mn01 to mn40: log-mel -> frame and clip embeddings, and AudioSet logits by option.

Shapes: B = clips, T = samples, C = channels, M = mel bins, F = mel frames, S = frame embeddings, 320 ms apart by default.
Architecture and parameter names: Schmid et al., arXiv 2211.04772, and fschmid56/EfficientAT. One addition: averages over
time, in squeeze-excitation and in the clip embedding, leave out the padding of a clip, so that a short clip in a long batch
nearly keeps its embedding. For an unpadded clip the result is that of the reference.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.encoders.configs import MobileNetConfig
from train.models.encoders.encoder import AudioEncoder, AudioFeatures, as_image, frame_mask
from train.models.encoders.frontend import EfficientLogMel

SHORTEST_SAMPLES = 514  # the front end's reflect padding needs as many


class Row(NamedTuple):
    """One line of MobileNetV3-large's table, at width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


STEM, STEM_STRIDE, LAST_EXPANSION, HIDDEN = 16, 2, 6, 1280
ROWS = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)


class MobileNet(AudioEncoder):
    """Waveform -> frame embeddings, one clip embedding, and with a head the logits of its classes."""

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.mel = EfficientLogMel(config.sample_rate_hz, config.hop_samples, config.num_mels, config.jitter)
        channels = scaled(STEM, config.width)
        blocks: list[nn.Module] = [ConvNorm(1, channels, 3, stride=STEM_STRIDE, activation=nn.Hardswish)]
        for row in ROWS:
            blocks.append(InvertedResidual(channels, row, config.width))
            channels = scaled(row.out, config.width)
        self.embedding_dim = LAST_EXPANSION * channels
        blocks.append(ConvNorm(channels, self.embedding_dim, 1, activation=nn.Hardswish))
        self.features = nn.ModuleList(blocks)
        self.classifier = self._head(config) if config.num_classes else None
        self.apply(_initialise)

    def _head(self, config: MobileNetConfig) -> nn.Sequential:
        hidden = scaled(HIDDEN, config.width)
        pooled = (nn.Identity(), nn.Identity())  # pooling and flattening have indices 0 and 1 in the released layout
        linear = (nn.Linear(self.embedding_dim, hidden), nn.Hardswish(), nn.Dropout(config.dropout))
        return nn.Sequential(*pooled, *linear, nn.Linear(hidden, config.num_classes))

    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-mel (B, M, F) and its valid frames; see `AudioEncoder.front_end`."""
        waveform = nnf.pad(waveform, (0, max(0, SHORTEST_SAMPLES - waveform.shape[1])))
        return self.mel(waveform), (num_samples.clamp(min=1) - 1) // self.config.hop_samples + 1

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """See `AudioEncoder.network`."""
        valid = frame_mask(num_frames, features.shape[2])[:, None]
        x = (features * valid)[:, None]  # (B, 1, M, F); convolutions pad with zeros, too
        x = as_image(x, next(self.features.parameters()))
        for block in self.features:
            x, num_frames = block(x, num_frames)
        frames = x.mean(dim=2).transpose(1, 2)  # (B, S, C)
        return AudioFeatures(frames, num_frames, masked_mean(x, num_frames))

    def frame_edges_s(self, count: int) -> Tensor:
        """See `AudioEncoder.frame_edges_s`; the first frame is centred on the start of the clip."""
        step_s = math.prod((STEM_STRIDE, *(row.stride for row in ROWS))) * self.config.hop_samples / self.sample_rate_hz
        return ((torch.arange(count + 1) - 0.5) * step_s).clamp(min=0)

    def tag_logits(self, features: AudioFeatures) -> Tensor:
        """Return the head's logits (B, num_classes); a sigmoid makes probabilities of them."""
        assert self.classifier is not None, "this encoder has no tagging head: num_classes is 0"
        logits: Tensor = self.classifier(features.clip)
        return logits


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and perhaps an activation; carries the number of valid frames along."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = None,
    ) -> None:
        conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False
        )
        norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        super().__init__(conv, norm, *([activation()] if activation else []))
        self.stride = stride

    def forward(self, x: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map (B, C, M, F) to (B, C', M / stride, F / stride), rounded up."""
        return super().forward(x), (num_frames + self.stride - 1) // self.stride


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, squeeze-excitation where the row has it, project; a residual where shapes allow."""

    def __init__(self, in_channels: int, row: Row, width: float) -> None:
        super().__init__()
        expanded, out = scaled(row.expanded, width), scaled(row.out, width)
        activation = nn.Hardswish if row.hardswish else nn.ReLU
        self.residual = row.stride == 1 and in_channels == out
        self.block = nn.ModuleList()
        if expanded != in_channels:
            self.block.append(ConvNorm(in_channels, expanded, 1, activation=activation))
        self.block.append(ConvNorm(expanded, expanded, row.kernel, row.stride, expanded, activation))
        if row.squeeze:
            self.block.append(SqueezeExcitation(expanded))
        self.block.append(ConvNorm(expanded, out, 1))

    def forward(self, x: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, M, F) to (B, C', M', F')."""
        entering = x
        for layer in self.block:
            x, num_frames = layer(x, num_frames)
        return (x + entering if self.residual else x), num_frames


class SqueezeExcitation(nn.Module):
    """Channel gates from each channel's mean over mel bins and valid frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([Gate(channels)])  # a list of one, as the released layout names it

    def forward(self, x: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (B, C, M, F) per channel."""
        return x * self.conc_se_layers[0](masked_mean(x, num_frames))[..., None, None], num_frames


class Gate(nn.Module):
    """Channel means (B, C) -> factors (B, C) from 0 to 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled(channels // 4, 1.0)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, means: Tensor) -> Tensor:
        """Compute the factors."""
        return torch.sigmoid(self.fc2(nnf.relu(self.fc1(means))))


def scaled(channels: int, width: float) -> int:
    """Return a channel count at a width: a multiple of 8, at least 8, never less than 0.9 of the exact value."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def masked_mean(x: Tensor, num_frames: Tensor) -> Tensor:
    """Average (B, C, M, F) over mel bins and valid frames; (B, C)."""
    valid = frame_mask(num_frames, x.shape[3])[:, None]  # (B, 1, F)
    return (x.mean(dim=2) * valid).sum(dim=2) / num_frames[:, None]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)
