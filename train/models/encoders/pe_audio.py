"""The audio tower of transformers' PE-Audio: the encoder of DAC, a convolution over its frames and a transformer.

Shapes: B = clips, T = samples, S = frames of 40 ms, D = embedding size.
"""

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from train.models.encoders.configs import PeAudioConfig
from train.models.encoders.encoder import AudioEncoder, AudioFeatures, frame_mask

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PeAudioEncoder, PeAudioFeatureExtractor


class PeAudio(AudioEncoder):
    """PE-Audio behind the interface of our encoders.

    As its processor does, it fills the last frame of a clip with the samples before it in reverse, and masks the zeros of
    shorter clips. The codec has no mask: zeros behind a clip change its last frames, here and in transformers. A clip alone
    has the embedding of the processor's clip alone; in a batch, that of the processor's batch. DAC is never trained.
    """

    def __init__(self, model: "PeAudioEncoder", extractor: "PeAudioFeatureExtractor") -> None:
        super().__init__()
        self.model, self.embedding_dim = model, model.config.hidden_size
        self.config = PeAudioConfig(network=model.config.to_diff_dict(), extractor=extractor.to_dict())
        self.sample_rate_hz, self.hop = extractor.sampling_rate, extractor.hop_length
        for codec in (model.embedder.dac_encoder, model.embedder.bottleneck):
            codec.requires_grad_(False)

    @classmethod
    def from_config(cls, config: PeAudioConfig) -> Self:
        """Make one with fresh weights."""
        from transformers import PeAudioEncoder, PeAudioEncoderConfig, PeAudioFeatureExtractor

        return cls(PeAudioEncoder(PeAudioEncoderConfig(**config.network)), PeAudioFeatureExtractor(**config.extractor))

    @torch.no_grad()
    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the waveforms (B, S * hop) with whole frames, and how many frames (B,) their true lengths have."""
        lengths = num_samples.clamp(min=1)[:, None]
        num_frames = -(-lengths // self.hop)
        size = -(-waveform.shape[1] // self.hop) * self.hop
        position = torch.arange(size, device=waveform.device)[None]
        period = (2 * lengths - 2).clamp(min=1)  # there and back
        place = position % period
        mirrored = waveform.gather(1, torch.minimum(place, period - place).clamp(max=waveform.shape[1] - 1))
        return mirrored * (position < num_frames * self.hop), num_frames[:, 0]

    def frame_edges_s(self, count: int) -> Tensor:
        """See `AudioEncoder.frame_edges_s`."""
        return torch.arange(count + 1) * (self.hop / self.sample_rate_hz)

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """Embed waveforms of whole frames."""
        mask = frame_mask(num_frames, features.shape[1] // self.hop).repeat_interleave(self.hop, dim=1)
        made = self.model(
            input_values=features[:, None], padding_mask=mask.int()
        )  # as the processor's: bool rounds apart
        return AudioFeatures(made.last_hidden_state, num_frames, made.pooler_output)
