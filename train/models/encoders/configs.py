"""Configs of the audio encoders. This module does not import torch: whoever reads the config of a checkpoint imports it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

WIDTHS = {"mn01": 0.1, "mn02": 0.2, "mn04": 0.4, "mn05": 0.5, "mn10": 1.0, "mn20": 2.0, "mn30": 3.0, "mn40": 4.0}


@dataclass(frozen=True, kw_only=True)
class Cnn14Config:
    """PANNs CNN14; smaller towers differ from the defaults only in these numbers."""

    encoder: Literal["cnn14"] = "cnn14"
    """Architecture."""
    sample_rate_hz: int = 32_000
    """Rate of the waveform, Hz."""
    hop_samples: int = 320
    """Step between mel frames, samples; 320 is 10 ms."""
    num_mels: int = 64
    """Mel bins between 50 and 14,000 Hz."""
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    """Width of each block of two convolutions; every block but the last halves time and frequency."""
    block_dropout: float = 0.2
    """Dropout after each block."""
    clip_dropout: float = 0.5
    """Dropout before and after the clip embedding's linear layer."""


@dataclass(frozen=True, kw_only=True)
class MobileNetConfig:
    """EfficientAT's mn10; the others differ in width."""

    encoder: Literal["mobilenet"] = "mobilenet"
    """Architecture."""
    sample_rate_hz: int = 32_000
    """Rate of the waveform, Hz."""
    hop_samples: int = 320
    """Step between mel frames, samples; 320 is 10 ms, as in all but the _hop_ models."""
    num_mels: int = 128
    """Mel bins up to 15,000 Hz; 128 in all but the _mels_ models."""
    width: float = 1.0
    """Factor on all channel counts: 0.4 for mn04, 1.0 for mn10, up to 4.0 for mn40."""
    num_classes: int = 0
    """Classes of the tagging head, 527 in the released models; 0 for a bare encoder."""
    dropout: float = 0.2
    """Dropout inside the tagging head."""
    jitter: bool = True
    """Draw the mel bank's edges anew for each training batch, as the released models were trained."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """AST as trained on AudioSet; smaller ones differ only in these numbers."""

    encoder: Literal["transformer"] = "transformer"
    """Architecture."""
    max_frames: int = 1024
    """Length of the input in 10 ms frames; shorter clips are padded to it, longer ones cut."""
    num_mels: int = 128
    """Mel bins of the filterbank."""
    hidden_dim: int = 768
    """Width."""
    layers: int = 12
    """Transformer layers."""
    heads: int = 12
    """Attention heads."""
    dropout: float = 0.0
    """Dropout of states and attention."""


@dataclass(frozen=True, kw_only=True)
class HtsatConfig:
    """The audio tower of a ClapModel, as a checkpoint of transformers describes it."""

    encoder: Literal["htsat"] = "htsat"
    """Architecture."""
    network: Mapping[str, Any]
    """transformers' ClapAudioConfig."""
    extractor: Mapping[str, Any]
    """transformers' ClapFeatureExtractor: rate, mel, filling of short clips."""

    @property
    def clip_s(self) -> float:
        """Return how many seconds of a clip the network takes."""
        return float(self.extractor["max_length_s"])


@dataclass(frozen=True, kw_only=True)
class PeAudioConfig:
    """The audio tower of PE-Audio, as a checkpoint of transformers describes it."""

    clip_s: ClassVar[float] = 30.0  # it takes clips of any length; this bounds the memory of its codec

    encoder: Literal["pe_audio"] = "pe_audio"
    """Architecture."""
    network: Mapping[str, Any]
    """transformers' PeAudioEncoderConfig."""
    extractor: Mapping[str, Any]
    """transformers' PeAudioFeatureExtractor: rate and length of a frame."""


AudioConfig = Cnn14Config | MobileNetConfig | TransformerConfig  # those that flags can describe
EncoderConfig = AudioConfig | HtsatConfig | PeAudioConfig
CONFIGS: dict[str, type[EncoderConfig]] = {  # by the name in config.json
    config.encoder: config for config in (Cnn14Config, MobileNetConfig, TransformerConfig, HtsatConfig, PeAudioConfig)
}


def restore(fields: Mapping[str, Any]) -> EncoderConfig:
    """Return the config whose fields were read from JSON, where tuples are lists."""
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return CONFIGS[fields["encoder"]](**{**fields, **tuples})
