"""Two towers in one space: what all of them share, and BLAT's contrastive model over any audio and text encoder of ours.

Shapes: B = pairs, N = clips, M = texts, T = samples, L = tokens, D = joint size.
Layout and numerics: the released BLAT code.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.models.configs import ClapConfig, TowersConfig
from train.models.encoders import registry
from train.models.encoders.encoder import AudioEncoder, AudioFeatures, ClipEmbeddings, Waveform, Windows
from train.models.text import TextEncoder, TextTower

INITIAL_TEMPERATURE = 0.07
NORM_FLOOR = 1e-7
TEXT_BATCH = 256  # texts in one pass
Encode = Callable[[Tensor, Tensor], Tensor]
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0  # where SigLIP starts, Zhai et al. 2023


class Towers(NamedTuple):
    """Outputs for a batch of pairs."""

    audio: Tensor  # (B, D) unit vectors
    text: Tensor  # (B, D) unit vectors; (B, R, D) of R texts for each clip
    scale: Tensor  # exp of the logit scale, a scalar
    bias: Tensor  # added to the logits, a scalar; 0 where the model has none
    frames: "FrameTowers | None" = None  # where phrases are given


class FrameTowers(NamedTuple):
    """Frames of a batch of clips, and phrases to compare them with."""

    audio: Tensor  # (B, S, D) unit vectors
    num_frames: Tensor  # (B,) valid frames of each clip
    edges_s: Tensor  # (S + 1,) see `AudioEncoder.frame_edges_s`
    phrase: Tensor  # (P, D) unit vectors
    scale: Tensor  # exp of the logit scale of frames, a scalar
    bias: Tensor  # added to their logits, a scalar


class ClipFrames(NamedTuple):
    """The frames of a whole clip."""

    vectors: Tensor  # (S, D) unit vectors of the shared space
    edges_s: Tensor  # (S + 1,) where the frames begin and end, seconds


class TwoTowers(nn.Module):
    """Audio and text -> unit vectors whose dot product is their similarity."""

    config: TowersConfig
    audio_encoder: AudioEncoder
    text_encoder: TextTower
    audio_proj: nn.Module
    text_proj: nn.Module
    logit_scale: nn.Parameter  # a scalar, the natural logarithm of the scale
    logit_bias: nn.Parameter | None
    frame_scale: nn.Parameter | None  # of the logits of frames, likewise
    frame_bias: nn.Parameter | None

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio tower, Hz."""
        return self.audio_encoder.sample_rate_hz

    def forward(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        tokens: Tensor,
        mask: Tensor,
        sample_rate_hz: int | None = None,
        phrases: tuple[Tensor, Tensor] | None = None,
    ) -> Towers:
        """Embed pairs: zero-padded clips (B, T) with true lengths (B,), and token ids (B, L) with their mask.

        Of several texts for each clip, ids and mask are (B, R, L). With `phrases`, ids and mask (P, L), the frames too.
        """
        features = self.audio_encoder(waveform, num_samples, sample_rate_hz)
        audio = self.unit(self.audio_proj(features.clip))
        scale = self.logit_scale.exp()
        bias = torch.zeros_like(scale) if self.logit_bias is None else self.logit_bias * 1.0
        towers = Towers(audio, self.encode_text(tokens, mask), scale, bias)
        return towers if phrases is None else towers._replace(frames=self._frames(features, *phrases))

    def _frames(self, features: AudioFeatures, tokens: Tensor, mask: Tensor) -> FrameTowers:
        assert self.frame_scale is not None and self.frame_bias is not None, "frames is false in this model's config"
        frames = self._frame_vectors(features)
        edges_s = self.audio_encoder.frame_edges_s(frames.shape[1]).to(frames.device)
        phrase = self.encode_text(tokens, mask)
        scale, bias = self.frame_scale.exp(), self.frame_bias * 1.0
        return FrameTowers(frames, features.num_frames, edges_s, phrase, scale, bias)

    def _frame_vectors(self, features: AudioFeatures) -> Tensor:
        """Return the unit vectors (B, S, D) of frames in the shared space."""
        return self.unit(self.audio_proj(self.audio_encoder.embed_frames(features.frames)))

    def encode_audio(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> Tensor:
        """Embed clips (B, T), zero-padded, with true lengths (B,); see `AudioEncoder.forward`."""
        return self.unit(self.audio_proj(self.audio_encoder(waveform, num_samples, sample_rate_hz).clip))

    @torch.no_grad()
    def encode_clips(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> ClipEmbeddings:
        """Embed clips of any length, each an int16 or float array (T,): the policy everywhere except in training.

        A clip is cut into windows of the fixed length, averaged by their true length, unless the model has another policy.

        Args:
            clips: N arrays of one type and rate.
            sample_rate_hz: their rate; the audio tower's when left out.

        Returns:
            The embeddings (N, E) of the audio encoder and the unit vectors (N, D) of the shared space. A clip gets the same
            vectors in every batch.
        """
        rate_hz, device = sample_rate_hz or self.sample_rate_hz, self.logit_scale.device
        if not clips:
            sizes = (self.audio_encoder.embedding_dim, self.config.joint_dim)
            return ClipEmbeddings(*(torch.zeros(0, size, device=device) for size in sizes))

        def encode(waveform: Tensor, num_samples: Tensor) -> Tensor:
            features: Tensor = self.audio_encoder(waveform.to(device), num_samples.to(device), rate_hz).clip
            return features

        windows, features = self.encode_windows(clips, round(self.config.clip_s * rate_hz), encode)
        return ClipEmbeddings(
            windows.mean(features.float()), self.unit(windows.mean(self.unit(self.audio_proj(features))))
        )

    @torch.no_grad()
    def encode_frames(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> list[ClipFrames]:
        """Embed the frames of clips of any length in the shared space, each as that of a clip of one frame.

        A clip is cut into windows of the fixed length, the last one zero-padded; frames beyond its end are left out. The
        arguments are those of `encode_clips`.
        """
        rate_hz, device = sample_rate_hz or self.sample_rate_hz, self.logit_scale.device
        windows = Windows(clips, round(self.config.clip_s * rate_hz))
        found: list[list[ClipFrames]] = [[] for _ in clips]
        clip_index = iter(windows.clip_index)
        for waveform, lengths in windows.batches():
            features = self.audio_encoder(waveform.to(device), lengths.to(device), rate_hz)
            vectors = self._frame_vectors(features)
            edges_s = self.audio_encoder.frame_edges_s(vectors.shape[1]).to(device)
            for own, count in zip(vectors, features.num_frames.tolist(), strict=True):
                frames = found[next(clip_index)]
                start_s = len(frames) * windows.size / rate_hz
                frames.append(ClipFrames(own[:count], start_s + edges_s[: count + 1]))
        return [_joined(own) for own in found]

    def encode_windows(self, clips: Sequence[Waveform], size: int, encode: Encode) -> tuple[Windows, Tensor]:
        """Return the windows of clips and their embeddings (W, E).

        Args:
            clips: N arrays of one type and rate.
            size: `clip_s` in samples.
            encode: from waveforms (B, T) and true lengths (B,) to embeddings (B, E).
        """
        windows = Windows(clips, size)
        return windows, windows.padded(encode, self.logit_scale.device)

    def embed_clips(self, clips: Sequence[Waveform], sample_rate_hz: int | None = None) -> Tensor:
        """Return the unit vectors (N, D) of clips of any length; see `encode_clips`."""
        return self.encode_clips(clips, sample_rate_hz).outputs

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (..., L) with their mask."""
        if tokens.dim() > 2:
            return self.encode_text(tokens.flatten(0, -2), mask.flatten(0, -2)).unflatten(0, tokens.shape[:-1])
        return self.unit(self.text_proj(self.text_encoder(tokens, mask)))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed any number of texts; (M, D) unit vectors.

        Each distinct text is embedded once, in sorted order: equal texts get vectors that are equal to the bit, and no
        vector depends on the position of its text.
        """
        distinct, device = sorted(set(texts)), self.logit_scale.device
        vectors = [torch.zeros(0, self.config.joint_dim, device=device)]
        for first in range(0, len(distinct), TEXT_BATCH):
            tokens, mask = self.text_encoder.tokenize(distinct[first : first + TEXT_BATCH])
            vectors.append(self.encode_text(tokens.to(device), mask.to(device)))
        row = {text: i for i, text in enumerate(distinct)}
        return torch.cat(vectors)[torch.tensor([row[text] for text in texts], dtype=torch.long, device=device)]

    @staticmethod
    def similarity(audio: Tensor, text: Tensor) -> Tensor:
        """Return the cosines (N, M) of unit vectors (N, D) and (M, D)."""
        return audio @ text.T

    @staticmethod
    def unit(vectors: Tensor) -> Tensor:
        """Scale rows to length 1, BLAT's way: its floor is added to the norm."""
        vectors = vectors.float()  # under autocast too
        return vectors / (vectors.norm(dim=-1, keepdim=True) + NORM_FLOOR)


class Clap(TwoTowers):
    """Two towers of ours; see `ClapConfig`."""

    config: ClapConfig
    text_encoder: TextEncoder

    def __init__(self, config: ClapConfig, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = registry.build(config.audio)
        self.text_encoder = text_encoder
        self.audio_proj = nn.Linear(self.audio_encoder.embedding_dim, config.joint_dim)
        self.text_proj = nn.Linear(self.text_encoder.embedding_dim, config.joint_dim)
        scale = SIGMOID_SCALE if config.sigmoid else 1 / INITIAL_TEMPERATURE
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.logit_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS)) if config.sigmoid else None
        for name in ("frame_scale", "frame_bias"):
            self.register_parameter(name, None)
        if config.frames:
            self.learn_frames()

    def learn_frames(self) -> None:
        """Add scale and bias of the logits of frames."""
        self.config = replace(self.config, frames=True)
        self.frame_scale = nn.Parameter(torch.tensor(math.log(SIGMOID_SCALE)))
        self.frame_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))

    def encode_windows(self, clips: Sequence[Waveform], size: int, encode: Encode) -> tuple[Windows, Tensor]:
        """See `TwoTowers`.

        The last window of a clip is zero-padded, or with `padding` "none" embedded at its true length, together with those
        of the same length only.
        """
        if self.config.padding != "none":
            return super().encode_windows(clips, size, encode)
        windows = Windows(clips, size)
        return windows, windows.unpadded(encode, self.logit_scale.device)


def _joined(windows: Sequence[ClipFrames]) -> ClipFrames:
    """Return the windows of a clip as one; a frame lasts until the next one begins."""
    starts = [window.edges_s[:-1] for window in windows]
    return ClipFrames(torch.cat([window.vectors for window in windows]), torch.cat([*starts, windows[-1].edges_s[-1:]]))
