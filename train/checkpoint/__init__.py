"""A checkpoint is a folder that loads without any flag."""

from train.checkpoint.format import (
    TAGS_FILE,
    Checkpoint,
    load,
    save,
    selected_on,
    start_audio,
    trained_on,
)
from train.checkpoint.info import (
    CONFIG_FILE,
    KINDS,
    RELEASED,
    CheckpointInfo,
    Kind,
    Lineage,
    Network,
    NetworkConfig,
    describe,
    describe_audio,
    exists,
)

__all__ = [
    "CONFIG_FILE",
    "KINDS",
    "RELEASED",
    "TAGS_FILE",
    "Checkpoint",
    "CheckpointInfo",
    "Kind",
    "Lineage",
    "Network",
    "NetworkConfig",
    "describe",
    "describe_audio",
    "exists",
    "load",
    "save",
    "selected_on",
    "start_audio",
    "trained_on",
]
