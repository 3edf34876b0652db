"""A checkpoint is a folder that loads without any flag.

What describes a checkpoint is imported at once and needs no torch. What loads or saves one is imported on first use: the
driver of a job on Ray describes its checkpoints and loads none.
"""

from typing import TYPE_CHECKING, Any

from train.checkpoint.description import describe, describe_audio, exists, lineage, resolve, title
from train.checkpoint.info import (
    CONFIG_FILE,
    KINDS,
    RELEASED,
    TAGS_FILE,
    UNKNOWN_CLIPS,
    CheckpointInfo,
    Kind,
    Lineage,
    NetworkConfig,
)

if TYPE_CHECKING:
    from train.checkpoint.format import (
        Checkpoint,
        Network,
        encoder_config,
        load,
        save,
        selected_on,
        start_audio,
        trained_on,
    )
else:  # out of mypy's sight, which would take any name for one of this module

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from train.checkpoint import format

        return getattr(format, name)


__all__ = [
    "CONFIG_FILE",
    "KINDS",
    "RELEASED",
    "TAGS_FILE",
    "UNKNOWN_CLIPS",
    "Checkpoint",
    "CheckpointInfo",
    "Kind",
    "Lineage",
    "Network",
    "NetworkConfig",
    "describe",
    "describe_audio",
    "encoder_config",
    "exists",
    "lineage",
    "load",
    "resolve",
    "save",
    "selected_on",
    "start_audio",
    "title",
    "trained_on",
]
