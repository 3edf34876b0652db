"""Audio encoders: waveform -> frame embeddings with their mask, and one clip embedding."""

from train.models.encoders.registry import AudioConfig, build

__all__ = ["AudioConfig", "build"]
