"""The audio encoders by config: one place that knows them all."""

from typing import Any

from train.models.encoders.cnn14 import Cnn14, Cnn14Config
from train.models.encoders.encoder import AudioEncoder
from train.models.encoders.mobilenet import MobileNet, MobileNetConfig
from train.models.encoders.transformer import SpectrogramTransformer, TransformerConfig

AudioConfig = Cnn14Config | MobileNetConfig | TransformerConfig
CONFIGS: dict[str, type[AudioConfig]] = {
    "cnn14": Cnn14Config,
    "mobilenet": MobileNetConfig,
    "transformer": TransformerConfig,
}


def restore(numbers: dict[str, Any]) -> AudioConfig:
    """Turn a config that went through JSON back into its dataclass."""
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in numbers.items()}
    return CONFIGS[numbers["encoder"]](**made)


def build(config: AudioConfig) -> AudioEncoder:
    """Make an encoder with fresh weights."""
    if isinstance(config, Cnn14Config):
        return Cnn14(config)
    return MobileNet(config) if isinstance(config, MobileNetConfig) else SpectrogramTransformer(config)
