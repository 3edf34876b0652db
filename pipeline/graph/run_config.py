"""What run.json of a dataset or overlay with captions holds: the config of the job, and the model behind the captions."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline import run_dir, storage
from pipeline.graph.caption_config import CaptionActorConfig, Precision

ConfigT = TypeVar("ConfigT", bound=CaptionActorConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Generic[ConfigT]):
    """The config of a job as it began, and what else decides its captions."""

    config: ConfigT
    captioner_revision: str
    """Hash of the captioner's weights."""
    arithmetic: Precision
    """What `precision` comes to: float32 or bfloat16."""

    @property
    def identity(self) -> dict[str, object]:
        """Return what decides the captions beside the config, as run.json names it."""
        return {"captioner_revision": self.captioner_revision, "arithmetic": self.arithmetic}


def read_run_config(folder: str, kind: type[ConfigT]) -> RunConfig[ConfigT]:
    """Read run.json; fields that were added to the config since have their defaults."""
    content = storage.read_json(storage.join(folder, run_dir.RUN_FILE))
    return RunConfig(
        config=run_dir.restore(kind, content),
        captioner_revision=content["captioner_revision"],
        arithmetic=content.get("arithmetic", "float32"),
    )
