"""Config of the captioner. This module does not import torch."""

from dataclasses import dataclass, field

from train.models.encoders.configs import AudioConfig, Cnn14Config


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """The captioner. The defaults are the released AudioCaps model's, with a tagging head beside it."""

    audio: AudioConfig = field(default_factory=Cnn14Config)
    """The audio encoder under the GRU."""
    clip_s: float = 10.0
    """Every clip is cut or zero-padded to this length, seconds, so that a clip gets the same captions in every batch."""
    guided: bool = True
    """Take tags as guidance; without, the plain captioner."""
    tagger: bool = True
    """A linear head on the clip embedding that predicts the tags, for guidance where a clip has none."""
    gru_layers: int = 3
    """Bidirectional GRU layers."""
    gru_dim: int = 256
    """GRU units per direction."""
    model_dim: int = 256
    """Width of the Transformer decoder and of a tag embedding."""
    decoder_layers: int = 2
    """Transformer decoder layers, post-norm."""
    decoder_heads: int = 4
    """Attention heads."""
    decoder_feedforward: int = 1024
    """Width of the feed-forward layers."""
    dropout: float = 0.2
    """Decoder dropout; the GRU uses 0.5 between its layers."""
    subwords: bool = False
    """Write captions from word pieces instead of whole words."""
    classifier_bias: bool = False
    """A bias on the word logits, as the 2022 releases of the reference have it."""
