"""Waveform -> log-mel, on the waveform's device: the front ends of PANNs and BLAT, of EfficientAT, and of AST.

Shapes: B = clips, T = samples, M = mel bins, F = mel frames, K = FFT bins. Everything here runs in float32,
also under autocast: in 16 bits the power of quiet sounds vanishes and that of loud sounds overflows. Spectra come from an
FFT and mel bins from one matrix product. Spectra by a matrix product, too, would take 70 times the operations of the FFT,
and in float32 tensor cores cannot help.
"""

from functools import lru_cache

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as nnf
from torchaudio.compliance.kaldi import get_mel_banks

INT16_SCALE = 32_768.0
POWER_FLOOR = 1e-10  # -100 dB


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device. A GPU copies it from page-locked memory: this thread does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def prepare(waveform: Tensor, num_samples: Tensor, from_hz: int, to_hz: int) -> tuple[Tensor, Tensor]:
    """Convert audio to float32 at the rate of a front end.

    Args:
        waveform: (B, T) int16, or float in [-1, 1].
        num_samples: (B,) true lengths in T.
        from_hz: rate of `waveform`.
        to_hz: rate wanted; resampled on the device when it differs.

    Returns:
        float32 (B, T') at `to_hz`, and the true lengths (B,) in T'.
    """
    waveform = waveform.float() / INT16_SCALE if waveform.dtype == torch.int16 else waveform.float()
    if from_hz == to_hz:
        return waveform, num_samples
    with torch.autocast(waveform.device.type, enabled=False):
        waveform = _resampler(from_hz, to_hz, waveform.device)(waveform)
    return waveform, (num_samples * to_hz + from_hz - 1) // from_hz


@lru_cache(maxsize=8)
def _resampler(from_hz: int, to_hz: int, device: torch.device) -> nn.Module:
    """Build the filter once per pair of rates; the numbers are those torchaudio gives for librosa's kaiser_best."""
    return torchaudio.transforms.Resample(
        from_hz,
        to_hz,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        beta=14.769656459379492,
    ).to(device)


class LogMel(torchaudio.transforms.MelSpectrogram):
    """PANNs' and BLAT's front end: 50-14,000 Hz, Slaney scale and area norm, 10 log10 of the power.

    Source: Kong et al., arXiv 1912.10211; torchlibrosa gives the same numbers. Buffer names are BLAT's.
    """

    FFT = 1024
    MIN_SAMPLES = FFT // 2 + 1  # a clip is reflected by half a window at both ends

    def __init__(self, sample_rate_hz: int, hop_samples: int, num_mels: int) -> None:
        super().__init__(
            sample_rate=sample_rate_hz,
            n_fft=self.FFT,
            hop_length=hop_samples,
            f_min=50.0,
            f_max=14_000.0,
            n_mels=num_mels,
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) in [-1, 1] to dB (B, M, F), F = T // hop + 1; T must be at least `MIN_SAMPLES`."""
        with torch.autocast(waveform.device.type, enabled=False):
            power: Tensor = super().forward(waveform.float())
            return 10.0 * torch.log10(power.clamp(min=POWER_FLOOR))


class EfficientLogMel(nn.Module):
    """EfficientAT's front end: pre-emphasis, a Kaldi mel bank up to 15 kHz, ln(power + 1e-5), then (v + 4.5) / 5.

    In train mode the band edges are drawn anew for each batch, as in that project: fmin from 0 to 9 Hz, fmax from
    14,001 to 16,000 Hz. Nothing of it is stored in a checkpoint. Source: fschmid56/EfficientAT, `AugmentMelSTFT`.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, sample_rate_hz: int, hop_samples: int, num_mels: int, jitter: bool) -> None:
        super().__init__()
        self.sample_rate_hz, self.hop_samples, self.num_mels, self.jitter = (
            sample_rate_hz,
            hop_samples,
            num_mels,
            jitter,
        )
        self.register_buffer("window", torch.hann_window(800, periodic=False), persistent=False)
        self.register_buffer("bank", self._bank(0, sample_rate_hz // 2 - 1000), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) in [-1, 1] to (B, M, F), F = (T - 1) // hop + 1; T must be at least 514."""
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            emphasised = waveform[:, 1:] - 0.97 * waveform[:, :-1]
            spectrum = torch.stft(
                emphasised, 1024, self.hop_samples, 800, self.window.float(), center=True, return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square()  # (B, K, F)
            return ((self._current_bank() @ power + 1e-5).log() + 4.5) / 5.0

    def _current_bank(self) -> Tensor:
        if not (self.training and self.jitter):
            return self.bank.float()
        low, high = int(torch.randint(0, 10, ())), int(torch.randint(14_001, 16_001, ()))
        return send(self._bank(low, high), self.window.device)

    def _bank(self, low_hz: int, high_hz: int) -> Tensor:
        bank, _ = get_mel_banks(self.num_mels, 1024, float(self.sample_rate_hz), low_hz, high_hz, 100.0, -500.0, 1.0)
        return nnf.pad(bank, (0, 1))  # (M, K): the Nyquist bin has no weight


class KaldiFbank(nn.Module):
    """AST's front end: Kaldi filterbank features of 25 ms Hann frames every 10 ms, standardised by AudioSet's statistics.

    Equal to `torchaudio.compliance.kaldi.fbank`, which takes one clip at a time. Source: Gong et al., arXiv 2104.01778.
    """

    SAMPLE_RATE_HZ, FRAME_SAMPLES, HOP_SAMPLES, FFT = 16_000, 400, 160, 512
    MEAN, STD = -4.2677393, 4.5689974

    window: Tensor
    bank: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        bank, _ = get_mel_banks(num_mels, self.FFT, float(self.SAMPLE_RATE_HZ), 20.0, 0.0, 100.0, -500.0, 1.0)
        self.register_buffer("window", torch.hann_window(self.FRAME_SAMPLES, periodic=False), persistent=False)
        self.register_buffer("bank", nnf.pad(bank, (0, 1)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (B, T) in [-1, 1] at 16 kHz to (B, F, M), F = (T - 400) // 160 + 1; T must be at least 400."""
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.float().unfold(1, self.FRAME_SAMPLES, self.HOP_SAMPLES)  # (B, F, 400)
            frames = frames - frames.mean(dim=2, keepdim=True)
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            spectrum = torch.fft.rfft((frames - 0.97 * previous) * self.window.float(), self.FFT)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, F, K)
            fbank = (power @ self.bank.float().T).clamp(min=torch.finfo(torch.float32).eps).log()
            return (fbank - self.MEAN) / (2 * self.STD)
