"""Front ends against independent implementations: librosa, torchlibrosa, torchaudio's Kaldi code, and published numbers."""

import math

import numpy as np
import pytest
import torch
import torchaudio

from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel, prepare


def noise(samples: int, clips: int = 1) -> torch.Tensor:
    """Noise that fades by 60 dB, so that loud and quiet frames are compared."""
    fade = torch.logspace(0, -3, samples)
    return 0.3 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0)) * fade


def tone(hz: float, samples: int, rate_hz: int = 32_000) -> torch.Tensor:
    time_s = torch.arange(samples, dtype=torch.float64) / rate_hz  # float32 would put the phase of a long tone off
    return torch.sin(2 * math.pi * hz * time_s).float()[None]


def log_mel() -> LogMel:
    return LogMel(32_000, 320, 64)


def efficient(train: bool = False) -> EfficientLogMel:
    return EfficientLogMel(32_000, 320, 128, jitter=True).train(train)


def test_log_mel_equals_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    waveform = noise(64_000)
    power = librosa.feature.melspectrogram(
        y=waveform[0].double().numpy(),
        sr=32_000,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        fmin=50,
        fmax=14_000,
        pad_mode="reflect",
    )
    expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    assert np.abs(log_mel()(waveform)[0].numpy() - expected).max() < 1e-4


def test_filterbank_equals_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, dtype=np.float64)
    assert (
        np.abs(log_mel().mel_scale.fb.T.numpy() - expected).max() < 5e-8
    )  # of a peak of 0.018: torchaudio computes it in float32


def test_log_mel_equals_torchlibrosa() -> None:
    """PANNs' own front end: its weights are drop-in."""
    stft = pytest.importorskip("torchlibrosa.stft")
    spectrogram = stft.Spectrogram(n_fft=1024, hop_length=320, win_length=1024, freeze_parameters=True)
    log = stft.LogmelFilterBank(
        sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None, freeze_parameters=True
    )
    waveform = noise(64_000, clips=2)
    expected = log(spectrogram(waveform))[:, 0].transpose(1, 2)  # (B, M, F)
    assert (log_mel()(waveform) - expected).abs().max() < 2e-3  # its DFT by convolution is the less exact of the two
    assert (log_mel()(waveform) - expected).abs().median() < 2e-5


def test_log_mel_of_silence_is_its_floor() -> None:
    mel = log_mel()(torch.zeros(1, 32_000))
    assert mel.shape == (1, 64, 101)
    assert torch.all(mel == -100.0)


def test_efficientat_bank_has_the_published_shape() -> None:
    bank = efficient().bank
    assert bank.shape == (128, 513)
    assert int((bank != 0).sum()) == 948
    assert bank.sum().item() == pytest.approx(473.4906, abs=1e-3)
    assert bank[0, :3].tolist() == pytest.approx([0, 0.188595, 0], abs=1e-5)
    assert bank[64, 83:86].tolist() == pytest.approx([0.231816, 0.623460, 0.988558], abs=1e-5)


def test_efficientat_log_mel_has_the_published_numbers() -> None:
    silence = efficient()(torch.zeros(1, 32_001))
    assert silence.shape == (1, 128, 101)
    assert torch.allclose(silence, torch.tensor(-1.402585), atol=1e-5)
    sine = efficient()(0.5 * tone(440, 320_000))
    assert sine.shape == (1, 128, 1000)
    found = [sine.mean(), sine.std(), sine.min(), sine.max()]
    assert [value.item() for value in found] == pytest.approx([-1.1648, 0.6488, -1.4026, 1.7491], abs=2e-4)


def test_efficientat_log_mel_equals_a_float64_reference() -> None:
    """The table of the specification, step by step, in numpy."""
    waveform = noise(16_000)[0].double().numpy()
    x = waveform[1:] - 0.97 * waveform[:-1]
    x = np.pad(x, 512, mode="reflect")
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799), 112)
    frames = np.stack([x[320 * t : 320 * t + 1024] for t in range(50)])
    power = np.abs(np.fft.rfft(frames * window)) ** 2  # (F, 513)
    mel = 1127 * np.log(1 + 31.25 * np.arange(512) / 700)
    step = 1127 * np.log(1 + 15_000 / 700) / 129
    left = np.arange(128)[:, None] * step
    bank = np.maximum(0, np.minimum((mel - left) / step, (left + 2 * step - mel) / step))
    expected = (np.log(bank @ power[:, :512].T + 1e-5) + 4.5) / 5
    assert np.abs(efficient()(torch.from_numpy(waveform)[None])[0].numpy() - expected).max() < 1e-4


def test_efficientat_band_edges_move_in_train_mode_only() -> None:
    waveform = noise(32_000)
    torch.manual_seed(0)
    assert torch.equal(efficient()(waveform), efficient()(waveform))
    training = efficient(train=True)
    assert not torch.equal(training(waveform), training(waveform))


def test_fbank_equals_kaldi_clip_by_clip() -> None:
    waveform = noise(16_000, clips=2)
    fbank = KaldiFbank(128)(waveform)
    for clip, found in zip(waveform, fbank, strict=True):
        expected = torchaudio.compliance.kaldi.fbank(
            clip[None], sample_frequency=16_000, window_type="hanning", num_mel_bins=128
        )
        assert torch.allclose(found, (expected + 4.2677393) / (2 * 4.5689974), atol=1e-4)


def test_int16_and_float_are_one_waveform() -> None:
    samples = torch.randint(-9_000, 9_000, (1, 6_400), dtype=torch.int16)
    length = torch.tensor([6_400])
    as_int, _ = prepare(samples, length, 32_000, 32_000)
    as_float, _ = prepare(samples.float() / 32_768, length, 32_000, 32_000)
    assert torch.equal(as_int, as_float)


@pytest.mark.parametrize("from_hz", [8_000, 16_000, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_counts_samples(from_hz: int) -> None:
    found, length = prepare(tone(1_000, from_hz, from_hz), torch.tensor([from_hz // 2]), from_hz, 32_000)
    assert found.shape == (1, 32_000)
    assert length.item() == 16_000
    inner = slice(2_000, 30_000)
    assert (found[:, inner] - tone(1_000, 32_000)[:, inner]).abs().max() < 1e-4


def test_resampling_cuts_what_the_lower_rate_cannot_hold() -> None:
    found, _ = prepare(tone(12_000, 32_000), torch.tensor([32_000]), 32_000, 16_000)
    assert found[:, 1_000:-1_000].abs().max() < 1e-4  # the new limit is 8 kHz
