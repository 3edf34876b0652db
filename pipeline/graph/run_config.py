"""What run.json of a dataset or overlay with captions holds: the config of the job, and the model behind the captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline import run_dir, storage
from pipeline.graph.caption_config import CaptionActorConfig, Precision
from pipeline.graph.captioner import CaptionerInfo

ConfigT = TypeVar("ConfigT", bound=CaptionActorConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Generic[ConfigT]):
    """The config of a job as it began, and what else decides its captions."""

    config: ConfigT
    captioner_revision: str
    """Hash of the captioner's weights, or what else fixes them."""
    arithmetic: str
    """What `precision` comes to: float32 or bfloat16; served where an endpoint decides."""
    frame_tagger_revision: str = ""
    """Hash of the weights of --timed.tagger; '' without one."""
    others: Mapping[str, object] = field(default_factory=dict)
    """What else decides the captions, as the captioner names it."""

    @property
    def identity(self) -> dict[str, object]:
        """Return what decides the captions beside the config, as run.json names it."""
        return {"captioner_revision": self.captioner_revision, "arithmetic": self.arithmetic, **self.others}

    @property
    def precision(self) -> Precision:
        """Return the precision that comes to the arithmetic on actors of any kind."""
        precisions: dict[str, Precision] = {"float32": "float32", "bfloat16": "bfloat16"}
        return precisions.get(self.arithmetic, "auto")


def begin(config: ConfigT, info: CaptionerInfo) -> RunConfig[ConfigT]:
    """Return the config of a job that begins with this captioner."""
    return RunConfig(
        config=config, captioner_revision=info.revision, arithmetic=config.arithmetic, others=info.identity
    )


def read_run_config(folder: str, kind: type[ConfigT]) -> RunConfig[ConfigT]:
    """Read run.json; fields that were added to the config since have their defaults."""
    content = storage.read_json(storage.join(folder, run_dir.RUN_FILE))
    return RunConfig(
        config=run_dir.restore(kind, content),
        captioner_revision=content["captioner_revision"],
        arithmetic=content.get("arithmetic", "float32"),
        frame_tagger_revision=content.get("frame_tagger_revision", ""),
    )
