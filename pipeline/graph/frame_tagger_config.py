"""How --timed finds times, and which values of its fields cannot be."""

from dataclasses import dataclass, field

from pipeline import run_dir
from pipeline.errors import InputError

FLAG = "--timed.tagger"


@dataclass(frozen=True, kw_only=True)
class FrameTaggerConfig:
    """How --timed finds times in clips whose source has none."""

    tagger: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Checkpoint with a tagging head, such as one of `train convert mn10`, or a captioner that has one. It looks for the
    tags of the clip that it knows, and for all tags where it knows none of them. A clip that is longer than the captioner
    takes gets no phrases from it."""
    threshold: float = 0.5
    """Probability of a tag from which a frame has it, above 0 up to 1."""
    max_gap_s: float = 0.2
    """Longest gap inside a segment, seconds."""
    min_s: float = 0.1
    """Shortest segment, seconds."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be."""
        if not 0 < self.threshold <= 1:
            raise InputError("--timed.threshold", self.threshold, "use a probability above 0 up to 1")
        for name in ("max_gap_s", "min_s"):
            if (value := getattr(self, name)) < 0:
                raise InputError(f"--timed.{name.replace('_', '-')}", value, "use 0 or more seconds")
