"""Configs of the two towers, the tagger and the classifier. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from train.models.encoders.configs import AudioConfig, Cnn14Config, EncoderConfig, MobileNetConfig


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower. The defaults are BLAT's: the [CLS] state of bert-medium over 30 tokens."""

    name: str = "prajjwal1/bert-medium"
    """Pretrained BERT-like encoder with its tokenizer: a name on the Hugging Face hub or a local folder. Empty builds a BERT
    of the sizes below, with a WordPiece of the training captions."""
    pooling: Literal["cls", "mean"] = "cls"
    """The first token's state, or the mean over tokens as sentence-transformers models are trained."""
    max_tokens: int = 30
    """Captions are cut and padded to this many tokens, the special ones included."""
    vocab_size: int = 4_000
    """Largest WordPiece, where one is built."""
    hidden_dim: int = 512
    """Width, where a BERT is built."""
    layers: int = 8
    """Transformer layers, where a BERT is built."""
    heads: int = 8
    """Attention heads, where a BERT is built."""
    dropout: float = 0.1
    """Dropout of states and attention, where a BERT is built."""


@dataclass(frozen=True, kw_only=True)
class ClapConfig:
    """The two-tower model. The defaults are BLAT's."""

    audio: AudioConfig = field(default_factory=Cnn14Config)
    """Audio tower."""
    text: TextConfig = field(default_factory=TextConfig)
    """Text tower."""
    joint_dim: int = 1024
    """Size of the shared space."""
    clip_s: float = 10.0
    """Longer clips become windows of this length, seconds, averaged by length. Training crops or zero-pads clips to it."""
    padding: Literal["clip", "none"] = "clip"
    """How a clip or window shorter than clip_s is embedded: `clip` zero-pads it to clip_s as in training, `none` takes its
    true length as BLAT's released inference does."""
    sigmoid: bool = False
    """Learn a bias of the logits beside their scale, for the sigmoid loss."""
    frames: bool = False
    """Learn scale and bias of the logits of frames; `train pretrain --frame-weight` sets it."""


@dataclass(frozen=True, kw_only=True)
class HfTowersConfig:
    """Two towers of transformers. All of it comes from their own config and processor."""

    transformers: str
    """Architecture, transformers' `model_type`."""
    joint_dim: int
    """Size of the shared space."""
    clip_s: float
    """Longest clip that the processor takes whole, seconds; training crops clips to it."""
    sample_rate_hz: int
    """Rate of the waveform, Hz."""
    long_clips: Literal["windows", "fusion"]
    """Longer clips become windows of clip_s, averaged by length, or four mels of the whole clip that the network fuses.
    The processor draws a window, or the parts of the four mels, at random."""
    max_tokens: int
    """Texts are cut to this many tokens, the special ones included."""
    processor: Mapping[str, Any]
    """The feature extractor as transformers describes it, padding of short clips included; `tokenizer` is the class."""


TowersConfig = ClapConfig | HfTowersConfig


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """An encoder; with `num_classes` in its config, a tagger."""

    audio: AudioConfig = field(default_factory=MobileNetConfig)
    """The encoder."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A classifier."""

    audio: EncoderConfig = field(default_factory=MobileNetConfig)
    """The encoder."""
    exclusive: bool = True
    """Every clip has exactly one label (softmax); otherwise any number of them (sigmoid)."""
    clip_s: float = 10.0
    """Longer clips become windows of this length, seconds, averaged by length."""
