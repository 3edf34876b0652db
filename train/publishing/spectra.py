"""The front ends of the audio encoders without an FFT, for export: a spectrum is one convolution with a Fourier basis.

Everything between a frame of samples and its spectrum is linear: window, pre-emphasis, removal of the mean, the transform.
The basis is what the front end makes of the unit vectors, computed in 64 bits.

Shapes: B = clips, T = samples, N = samples of a frame, K = FFT bins, M = mel bins, F = frames.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.encoder import AudioEncoder
from train.models.encoders.frontend import POWER_FLOOR, EfficientLogMel, KaldiFbank, LogMel
from train.models.encoders.mobilenet import MobileNet
from train.models.encoders.transformer import SpectrogramTransformer


class ConvSpectrum(nn.Module):
    """Waveform -> the power in each bin of each frame."""

    basis: Tensor

    def __init__(self, prepare: Callable[[Tensor], Tensor], frame: int, fft: int, hop: int, reflect: bool) -> None:
        """Take what is done to frames (..., N) before the transform; `reflect` centres them, as torch.stft does."""
        super().__init__()
        self.hop, self.margin = hop, frame // 2 if reflect else 0
        spectra = torch.fft.rfft(prepare(torch.eye(frame, dtype=torch.float64)), fft).T  # (K, N)
        self.register_buffer("basis", torch.cat([spectra.real, spectra.imag])[:, None].float())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) to (B, K, F)."""
        x = waveform[:, None]
        if self.margin:
            x = nnf.pad(x, (self.margin, self.margin), mode="reflect")
        real, imaginary = nnf.conv1d(x, self.basis, stride=self.hop).chunk(2, dim=1)
        return real.square() + imaginary.square()


class ConvLogMel(nn.Module):
    """`LogMel`."""

    def __init__(self, front: LogMel) -> None:
        super().__init__()
        window = front.spectrogram.window.double()
        self.spectrum = ConvSpectrum(lambda frames: frames * window, LogMel.FFT, LogMel.FFT, front.hop_length, True)
        self.register_buffer("bank", front.mel_scale.fb.T.clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) to dB (B, M, F)."""
        return 10.0 * (self.get_buffer("bank") @ self.spectrum(waveform)).clamp(min=POWER_FLOOR).log10()


class ConvEfficientLogMel(nn.Module):
    """`EfficientLogMel` in eval mode."""

    def __init__(self, front: EfficientLogMel) -> None:
        super().__init__()
        margin = (1024 - len(front.window)) // 2
        window = nnf.pad(front.window.double(), (margin, margin))
        self.spectrum = ConvSpectrum(lambda frames: frames * window, 1024, 1024, front.hop_samples, True)
        self.register_buffer("bank", front.bank.clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) to (B, M, F)."""
        power = self.spectrum(waveform[:, 1:] - 0.97 * waveform[:, :-1])
        return ((self.get_buffer("bank") @ power + 1e-5).log() + 4.5) / 5.0


class ConvKaldiFbank(nn.Module):
    """`KaldiFbank`."""

    def __init__(self, front: KaldiFbank) -> None:
        super().__init__()
        window = front.window.double()

        def prepare(frames: Tensor) -> Tensor:
            frames = frames - frames.mean(dim=1, keepdim=True)
            previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
            return (frames - 0.97 * previous) * window

        self.spectrum = ConvSpectrum(prepare, front.FRAME_SAMPLES, front.FFT, front.HOP_SAMPLES, False)
        self.register_buffer("bank", front.bank.clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) to (B, F, M)."""
        power = self.get_buffer("bank") @ self.spectrum(waveform)
        fbank = power.clamp(min=torch.finfo(torch.float32).eps).log().transpose(1, 2)
        return (fbank - KaldiFbank.MEAN) / (2 * KaldiFbank.STD)


def replaced(encoder: AudioEncoder) -> AudioEncoder:
    """Return a copy of an encoder whose front end has no FFT.

    Raises:
        ValueError: when there is no such front end for its architecture.
    """
    encoder = copy.deepcopy(encoder)
    if isinstance(encoder, Cnn14):
        encoder.melspec_extractor = ConvLogMel(encoder.melspec_extractor)  # type: ignore[assignment]
    elif isinstance(encoder, MobileNet):
        encoder.mel = ConvEfficientLogMel(encoder.mel)  # type: ignore[assignment]
    elif isinstance(encoder, SpectrogramTransformer):
        encoder.fbank = ConvKaldiFbank(encoder.fbank)  # type: ignore[assignment]
    else:
        raise ValueError(f"{type(encoder).__name__} has no front end for ONNX")
    return encoder
