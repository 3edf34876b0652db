"""The Audio Spectrogram Transformer: 16 kHz filterbank features -> frame and clip embeddings, at most 10.24 s at a time.

Shapes: B = clips, T = samples, F = fbank frames, M = mel bins, S = frame embeddings (100 ms apart), D = width.
Architecture: Gong et al., arXiv 2104.01778, as `transformers` implements it; parameter names are those of its `ASTModel`.
"""

import torch
from torch import Tensor
from torch.nn import functional as nnf

from train.models.encoders.configs import TransformerConfig
from train.models.encoders.encoder import AudioEncoder, AudioFeatures, frame_mask
from train.models.encoders.frontend import KaldiFbank

PATCH, STRIDE = 16, 10  # of the square patches, in frames and in mel bins
PAD = (0.0 - KaldiFbank.MEAN) / (2 * KaldiFbank.STD)  # the feature extractor pads before it standardises


class SpectrogramTransformer(AudioEncoder):
    """Waveform -> frame embeddings (patches averaged over frequency) and one clip embedding."""

    def __init__(self, config: TransformerConfig) -> None:
        from transformers import ASTConfig, ASTModel  # seconds to import

        super().__init__()
        self.config = config
        self.sample_rate_hz, self.embedding_dim = KaldiFbank.SAMPLE_RATE_HZ, config.hidden_dim
        self.fbank = KaldiFbank(config.num_mels)
        self.model = ASTModel(
            ASTConfig(
                hidden_size=config.hidden_dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden_dim,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                patch_size=PATCH,
                frequency_stride=STRIDE,
                time_stride=STRIDE,
                max_length=config.max_frames,
                num_mel_bins=config.num_mels,
            )
        )

    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return fbank (B, max_frames, M), padded beyond each clip's end, and its valid frames (B,)."""
        hop, frame, size = KaldiFbank.HOP_SAMPLES, KaldiFbank.FRAME_SAMPLES, self.config.max_frames
        needed = (size - 1) * hop + frame
        fbank = self.fbank(nnf.pad(waveform[:, :needed], (0, max(0, needed - waveform.shape[1]))))
        num_frames = ((num_samples - frame) // hop + 1).clamp(1, size)
        valid = frame_mask(num_frames, size)[..., None]
        return torch.where(valid, fbank, PAD), num_frames

    def frame_edges_s(self, count: int) -> Tensor:
        """See `AudioEncoder.frame_edges_s`; patches overlap, and a frame is the middle of one."""
        hop_s = KaldiFbank.HOP_SAMPLES / self.sample_rate_hz
        return (torch.arange(count + 1) * STRIDE + (PATCH - STRIDE) / 2) * hop_s

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """See `AudioEncoder.network`."""
        state = self.model(features).last_hidden_state  # (B, 2 + M' * S, D): classes, then patches, mel by mel
        columns = (self.config.max_frames - PATCH) // STRIDE + 1
        frames = state[:, 2:].unflatten(1, (-1, columns)).mean(dim=1)  # (B, S, D)
        num_columns = ((num_frames - PATCH) // STRIDE + 1).clamp(1, columns)
        return AudioFeatures(frames, num_columns, state[:, :2].mean(dim=1))
