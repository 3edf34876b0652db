"""The registry of audio encoders: the one place where an encoder is added.

To add an encoder:
1. Write in configs.py a frozen dataclass of its shape, whose first field is `encoder: Literal["<name>"] = "<name>"`, and
   add it to `AudioConfig` and to `CONFIGS` there.
2. Write train/models/encoders/<name>.py with a subclass of `AudioEncoder` that takes this config: its `front_end`
   computes features, its `network` embeds them and is compiled as one graph. Add the pair to `ENCODERS`. Checkpoints and
   all networks then take it.
3. Add the class of its repeated block to `BLOCKS` in train/models/blocks.py: only these are compiled, recomputed and
   sharded one by one, and have learning rates by depth.
4. Add a named config to train/configs.py: the named config chooses the encoder, and flags change its shape.

An encoder with a new front end also adds it to `add_spec_augment` in train/data/augment.py. To load weights that another
project released, add their layout to train/checkpoint/released.py.
"""

from collections.abc import Callable
from typing import Any

from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.configs import (
    Cnn14Config,
    EncoderConfig,
    HtsatConfig,
    MobileNetConfig,
    PeAudioConfig,
    TransformerConfig,
)
from train.models.encoders.encoder import AudioEncoder
from train.models.encoders.htsat import Htsat
from train.models.encoders.mobilenet import MobileNet
from train.models.encoders.pe_audio import PeAudio
from train.models.encoders.transformer import SpectrogramTransformer

ENCODERS: dict[type[EncoderConfig], Callable[[Any], AudioEncoder]] = {
    Cnn14Config: Cnn14,
    HtsatConfig: Htsat.from_config,
    MobileNetConfig: MobileNet,
    PeAudioConfig: PeAudio.from_config,
    TransformerConfig: SpectrogramTransformer,
}


def build(config: EncoderConfig) -> AudioEncoder:
    """Make an encoder with fresh weights."""
    return ENCODERS[type(config)](config)
