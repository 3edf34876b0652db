"""An audio encoder, with its tagging head where it has one.

Shapes: B = clips, T = samples, K = tags; N = whole clips, E = embedding size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.models.configs import TaggerConfig
from train.models.encoders import registry
from train.models.encoders.configs import MobileNetConfig
from train.models.encoders.encoder import ClipEmbeddings, FrameProbabilities, Waveform, Windows
from train.models.encoders.mobilenet import MobileNet

WINDOW_S = 10.0  # of longer clips; AudioSet's taggers are trained on clips of this length


class Tagger(nn.Module):
    """Audio -> embeddings, and probabilities of `tags` where the encoder has a head."""

    def __init__(self, config: TaggerConfig, tags: Sequence[str]) -> None:
        super().__init__()
        self.config, self.tags = config, list(tags)
        self.encoder = registry.build(config.audio)
        outputs = config.audio.num_classes if isinstance(config.audio, MobileNetConfig) else 0
        assert len(self.tags) == outputs, f"{len(self.tags)} names for the {outputs} outputs of the tagging head"

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the encoder, Hz."""
        return self.encoder.sample_rate_hz

    @torch.no_grad()
    def tag(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> Tensor:
        """Return the probabilities (B, K) of the tags; see `AudioEncoder.forward` for the arguments.

        Raises:
            ValueError: when the encoder has no head.
        """
        if not isinstance(self.encoder, MobileNet) or not self.tags:
            raise ValueError("this encoder has no tagging head")
        return self.encoder.tag_logits(self.encoder(waveform, num_samples, sample_rate_hz)).sigmoid()

    @torch.no_grad()
    def tag_frames(
        self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None
    ) -> FrameProbabilities:
        """Return the probabilities of the tags in each frame; see `tag`."""
        if not isinstance(self.encoder, MobileNet) or not self.tags:
            raise ValueError("this encoder has no tagging head")
        features = self.encoder(waveform, num_samples, sample_rate_hz)
        each = features._replace(clip=self.encoder.embed_frames(features.frames))  # the head takes them like clips
        probabilities = self.encoder.tag_logits(each).sigmoid()
        edges_s = self.encoder.frame_edges_s(features.frames.shape[1])
        return FrameProbabilities(probabilities, features.num_frames, edges_s)

    @torch.no_grad()
    def encode_clips(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> ClipEmbeddings:
        """Return embeddings (N, E) and probabilities (N, K) of clips of any length, each an int16 or float array (T,).

        Longer ones are averaged over windows of 10 s. Nothing is padded, so that a clip gets the same in any batch. K is 0
        without a head.
        """
        rate_hz = sample_rate_hz or self.sample_rate_hz
        windows = Windows(clips, round(WINDOW_S * rate_hz))

        def encode(waveform: Tensor, num_samples: Tensor) -> Tensor:
            features = self.encoder(waveform, num_samples, rate_hz)
            if not (isinstance(self.encoder, MobileNet) and self.tags):
                return features.clip
            return torch.cat([features.clip, self.encoder.tag_logits(features).sigmoid()], dim=1)

        found = windows.mean(windows.unpadded(encode, next(self.parameters()).device))
        return ClipEmbeddings(
            *found.split([self.encoder.embedding_dim, found.shape[1] - self.encoder.embedding_dim], dim=1)
        )
