"""A checkpoint is a folder that loads without any flag.

What describes a checkpoint is imported at once and needs no torch. What loads or saves one is imported on first use: the
driver of a job on Ray describes its checkpoints and loads none.
"""

from typing import TYPE_CHECKING, Any

from train.checkpoint.info import (
    CONFIG_FILE,
    KINDS,
    RELEASED,
    TAGS_FILE,
    CheckpointInfo,
    Kind,
    Lineage,
    NetworkConfig,
    describe,
    describe_audio,
    exists,
)

if TYPE_CHECKING:
    from train.checkpoint.format import (
        Checkpoint,
        Network,
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
