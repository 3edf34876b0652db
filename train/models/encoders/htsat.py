"""The audio tower of transformers' ClapModel, HTSAT, with the front end of its processor computed in torch.

Shapes: B = clips, T = samples, M = mel bins, F = mel frames, C = mels of a clip, S = frame embeddings, D = embedding size.
"""

from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.encoders.configs import HtsatConfig
from train.models.encoders.encoder import AudioEncoder, AudioFeatures

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import ClapFeatureExtractor
    from transformers.models.clap.modeling_clap import ClapAudioModel

POWER_FLOOR = 1e-10  # -100 dB
GROUP = 16  # clips whose spectra are in memory at a time: they are computed in 64 bits, as the processor does


class ClapMel(nn.Module):
    """The log-mel of `ClapFeatureExtractor`, in 64 bits on the waveform's device: its numbers to 1e-6 dB.

    The processor has two mel banks: HTK's without norm for models with fusion, Slaney's with area norm for the others.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, extractor: "ClapFeatureExtractor", fusion: bool) -> None:
        super().__init__()
        self.fft, self.hop = extractor.fft_window_size, extractor.hop_length
        bank = extractor.mel_filters if fusion else extractor.mel_filters_slaney
        self.register_buffer("window", torch.hann_window(self.fft, dtype=torch.float64), persistent=False)
        self.register_buffer("bank", torch.from_numpy(np.asarray(bank.T, np.float64)), persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) in [-1, 1] to dB (B, M, F), float32, F = T // hop + 1."""
        with torch.autocast(waveform.device.type, enabled=False):
            return torch.cat([self._decibel(group) for group in waveform.split(GROUP)])

    def _decibel(self, waveform: Tensor) -> Tensor:
        window = self.window.double()
        spectrum = torch.stft(
            waveform.double(), self.fft, self.hop, window=window, pad_mode="reflect", return_complex=True
        )
        power = self.bank.double() @ (spectrum.real.square() + spectrum.imag.square())
        return (10.0 * power.clamp(min=POWER_FLOOR).log10()).float()


class Htsat(AudioEncoder):
    """HTSAT behind the interface of our encoders.

    A short clip is filled up as its processor does: repeated as often as it fits whole and zero-padded ("repeatpad"),
    repeated and cut ("repeat"), or zero-padded ("pad"). Of a longer clip, a network without fusion takes the beginning.
    With fusion it takes four mels: the whole clip shrunk to one window, and one window from each third. The processor draws
    these at random; here each is the middle one of its third. The processor also marks a random clip of each batch
    without longer ones as longer; here none is, as in LAION's own evaluation.
    """

    def __init__(self, model: "ClapAudioModel", extractor: "ClapFeatureExtractor") -> None:
        super().__init__()
        self.model, self.embedding_dim = model, model.config.hidden_size
        self.config = HtsatConfig(network=model.config.to_diff_dict(), extractor=extractor.to_dict())
        self.fusion = bool(model.config.enable_fusion)
        self.mel = ClapMel(extractor, self.fusion)
        self.sample_rate_hz, self.max_samples = extractor.sampling_rate, extractor.nb_max_samples
        self.padding = extractor.padding
        self.max_frames = self.max_samples // self.mel.hop + 1
        if self.fusion:  # training clips are no longer than a window: nothing would give these parts a gradient
            embed = model.audio_encoder.patch_embed
            embed.fusion_model.requires_grad_(False)
            embed.mel_conv2d.requires_grad_(False)

    @classmethod
    def from_config(cls, config: HtsatConfig) -> Self:
        """Make one with fresh weights."""
        from transformers import ClapAudioConfig, ClapFeatureExtractor
        from transformers.models.clap.modeling_clap import ClapAudioModel

        return cls(ClapAudioModel(ClapAudioConfig(**config.network)), ClapFeatureExtractor(**config.extractor))

    @torch.no_grad()
    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mels (B, C, F, M) of clips, and how many frames (B,) their true lengths have."""
        num_frames = num_samples // self.mel.hop + 1
        mel = self.mel(self._filled(waveform, num_samples)).transpose(1, 2)[:, None]
        if not self.fusion:
            return mel, num_frames.clamp(max=self.max_frames)
        mels = mel.repeat(1, 4, 1, 1)
        if waveform.shape[1] // self.mel.hop + 1 > self.max_frames:
            for row in torch.where(num_frames > self.max_frames)[0].tolist():
                mels[row] = self._fused(waveform[row : row + 1, : int(num_samples[row])])
        return mels, num_frames

    def frame_edges_s(self, count: int) -> Tensor:
        """See `AudioEncoder.frame_edges_s`; of a window, since the mels of a fused clip have no time of their own."""
        return torch.arange(count + 1) * (self.max_samples / count / self.sample_rate_hz)

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """Embed the mels of the front end."""
        longer = num_frames > self.max_frames
        made = self.model(input_features=features, is_longer=longer)
        frames = made.last_hidden_state.mean(dim=2).transpose(1, 2)  # (B, S, D): of each time over the frequencies
        valid = -(-num_frames.clamp(max=self.max_frames) * frames.shape[1] // self.max_frames)
        return AudioFeatures(frames, valid, made.pooler_output)

    def _filled(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """Return clips (B, max_samples), from zero-padded ones of any length."""
        lengths = num_samples.clamp(min=1, max=self.max_samples)[:, None]
        position = torch.arange(self.max_samples, device=waveform.device)[None]
        filled = waveform.gather(1, position % lengths)
        if self.padding == "repeat":
            return filled
        repeats = self.max_samples // lengths if self.padding == "repeatpad" else 1
        return filled * (position < lengths * repeats)

    def _fused(self, waveform: Tensor) -> Tensor:
        """Return the four mels (4, F, M) of a clip (1, T) that is longer than a window."""
        mel = self.mel(waveform).transpose(1, 2)  # (1, all frames, M)
        size = self.max_frames
        shrunk = nnf.interpolate(mel[None], size=[size, mel.shape[2]], mode="bilinear", align_corners=False)[0]
        thirds = np.array_split(np.arange(mel.shape[1] - size + 1), 3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        return torch.cat([shrunk, *(mel[:, start : start + size] for start in starts)])
