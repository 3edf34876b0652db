"""The audio side of the captioner: an audio encoder, a bidirectional GRU over its frames, and the mean of tag embeddings.

Shapes: B = clips, S = frame embeddings, K = known tags, D = width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from train.models.encoders import registry
from train.models.encoders.configs import AudioConfig
from train.models.encoders.encoder import AudioFeatures


class EncodedAudio(NamedTuple):
    """Encoder output of a batch of clips, to which the decoder attends."""

    features: AudioFeatures  # of the audio encoder
    memory: Tensor  # (B, S, 2 * gru_dim)


class RecurrentEncoder(nn.Module):
    """An audio encoder and a bidirectional GRU over its frame embeddings."""

    def __init__(self, audio: AudioConfig, dim: int, layers: int) -> None:
        super().__init__()
        self.cnn = registry.build(audio)
        self.rnn = Gru(self.cnn.embedding_dim, dim, layers)

    def forward(
        self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None
    ) -> tuple[AudioFeatures, Tensor]:
        """Return the encoder's features and the attention memory (B, S, 2 * gru_dim)."""
        features = self.cnn(waveform, num_samples, sample_rate_hz)
        return features, self.rnn(features.frames, features.num_frames)


class Gru(nn.Module):
    """A bidirectional GRU that stops at each clip's true length."""

    def __init__(self, in_dim: int, dim: int, layers: int) -> None:
        super().__init__()
        dropout = 0.5 if layers > 1 else 0.0
        self.network = nn.GRU(in_dim, dim, layers, batch_first=True, bidirectional=True, dropout=dropout)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, 2 * dim), zero after each clip's end."""
        lengths = num_frames.cpu()
        if bool((lengths == frames.shape[1]).all()):  # clips that need no cutting, as most of AudioSet's
            return self.network(frames)[0]
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.network(packed)[0], batch_first=True, total_length=frames.shape[1])[0]


class TagEncoder(nn.Module):
    """Multi-hot tags (B, K) -> the mean of their embeddings (B, D); no tags give zeros."""

    def __init__(self, num_tags: int, dim: int) -> None:
        super().__init__()
        self.label_embedding = nn.Parameter(torch.randn(num_tags, dim))

    def forward(self, tags: Tensor) -> Tensor:
        """Average the embeddings of the tags that are present."""
        return tags @ self.label_embedding / tags.sum(dim=1, keepdim=True).clamp(min=1.0)
