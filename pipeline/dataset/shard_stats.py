"""The counts of a shard, as its commit mark `NNNNN_stats.json` holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COUNTS = ("in", "written", "filtered", "failed")


@dataclass(frozen=True, kw_only=True)
class ShardStats:
    """Counts of a shard: num_clips = written + filtered + failed."""

    shard: int
    plan_hash: str
    """Hash of the plan, or of the retry, that the shard belongs to."""
    num_clips: int
    """Planned clips; `in` in JSON."""
    written: int
    filtered: int
    failed: int
    reasons: dict[str, int]
    """Clips that are not written, by reason, in alphabetical order."""
    duration_s: float
    """Seconds of audio written."""
    tar_size: int
    """Bytes of the tar."""
    tar_sha256: str
    captioning: dict[str, int] = field(default_factory=dict)
    """What the captioner counted, such as requests and what was cut from its captions; in JSON only where there is some."""

    @property
    def counts(self) -> dict[str, int]:
        """Return the clips by outcome, by the names in COUNTS."""
        return {"in": self.num_clips, "written": self.written, "filtered": self.filtered, "failed": self.failed}

    def to_json(self) -> dict[str, Any]:
        """Return what the commit mark holds. The order of the names is their order in the file."""
        return {
            "shard": self.shard,
            "plan_hash": self.plan_hash,
            **self.counts,
            "reasons": self.reasons,
            "duration_s": self.duration_s,
            "tar_size": self.tar_size,
            "tar_sha256": self.tar_sha256,
            **({"captioning": self.captioning} if self.captioning else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ShardStats":
        """Return what a commit mark holds. Raises KeyError when it lacks a field."""
        names = ("shard", "plan_hash", "written", "filtered", "failed", "duration_s", "tar_size", "tar_sha256")
        return cls(
            num_clips=content["in"],
            reasons=dict(content["reasons"]),
            captioning=dict(content.get("captioning") or {}),
            **{name: content[name] for name in names},
        )
