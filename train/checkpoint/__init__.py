"""A checkpoint is a folder that loads without any flag."""

from train.checkpoint.format import (
    CONFIG_FILE,
    KINDS,
    RELEASED,
    TAGS_FILE,
    Checkpoint,
    Network,
    describe,
    describe_audio,
    exists,
    load,
    save,
    selected_on,
    start_audio,
    trained_on,
)

__all__ = [
    "CONFIG_FILE",
    "KINDS",
    "RELEASED",
    "TAGS_FILE",
    "Checkpoint",
    "Network",
    "describe",
    "describe_audio",
    "exists",
    "load",
    "save",
    "selected_on",
    "start_audio",
    "trained_on",
]
