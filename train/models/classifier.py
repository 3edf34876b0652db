"""An audio encoder with one linear layer over its clip embedding: the result of fine-tuning on labels.

Shapes: B = clips, T = samples, C = labels; N = whole clips, E = embedding size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.models.configs import ClassifierConfig
from train.models.encoders import registry
from train.models.encoders.encoder import ClipEmbeddings, Waveform, Windows


class Classifier(nn.Module):
    """Audio -> logits of `labels`."""

    def __init__(self, config: ClassifierConfig, labels: Sequence[str]) -> None:
        super().__init__()
        self.config, self.labels = config, list(labels)
        self.encoder = registry.build(config.audio)
        self.head = nn.Linear(self.encoder.embedding_dim, len(self.labels))

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the encoder, Hz."""
        return self.encoder.sample_rate_hz

    def forward(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> Tensor:
        """Return the logits (B, C); see `AudioEncoder.forward` for the arguments."""
        logits: Tensor = self.head(self.encoder(waveform, num_samples, sample_rate_hz).clip)
        return logits.float()

    @torch.no_grad()
    def encode_clips(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> ClipEmbeddings:
        """Return embeddings (N, E) and probabilities (N, C) of clips of any length, the same for a clip in any batch."""
        rate_hz = sample_rate_hz or self.sample_rate_hz
        windows = Windows(clips, round(self.config.clip_s * rate_hz))

        def encode(waveform: Tensor, num_samples: Tensor) -> Tensor:
            features = self.encoder(waveform, num_samples, rate_hz).clip
            logits = self.head(features).float()
            return torch.cat([features, logits.softmax(dim=1) if self.config.exclusive else logits.sigmoid()], dim=1)

        found = windows.mean(windows.unpadded(encode, self.head.weight.device))
        return ClipEmbeddings(*found.split([self.encoder.embedding_dim, len(self.labels)], dim=1))
