"""How captions are chosen. Configs, run.json and the shards hold it; this module does not import torch."""

from dataclasses import dataclass
from typing import Literal

MAX_BEAMS = 20


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How captions are chosen."""

    method: Literal["beam", "greedy", "nucleus"] = "beam"
    """Beam search; the most probable word each time; or sampling among the most probable words."""
    beams: int = 3
    """Beams of the search."""
    num_captions: int = 1
    """Captions kept for each clip, best first and no two alike: at most `beams` from the search, one from greedy, any
    number from sampling."""
    top_p: float = 0.9
    """Nucleus sampling chooses among the most probable words that together have this probability, above 0 up to 1."""
    temperature: float = 1.0
    """Nucleus sampling divides the logits by this; above 0."""
    seed: int = 0
    """Nucleus sampling draws the same words for the same seed and clip, whatever the batch."""

    def check(self) -> None:
        """Raise ValueError naming the first field that cannot be."""
        if not 1 <= self.beams <= MAX_BEAMS:
            raise ValueError(f"beams {self.beams}: use 1 to {MAX_BEAMS}")
        max_captions = {"beam": self.beams, "greedy": 1, "nucleus": MAX_BEAMS}[self.method]
        if not 1 <= self.num_captions <= max_captions:
            raise ValueError(f"num_captions {self.num_captions}: use 1 to {max_captions} with {self.method} decoding")
        if not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ValueError(f"top_p {self.top_p}, temperature {self.temperature}: use 0 < top_p <= 1, temperature > 0")

    @property
    def rows(self) -> int:
        """Rows of the decoder that each clip takes."""
        return {"beam": self.beams, "greedy": 1, "nucleus": self.num_captions}[self.method]

    def __str__(self) -> str:
        if self.method == "nucleus":
            return f"nucleus {self.top_p:g} at temperature {self.temperature:g}, seed {self.seed}"
        return f"beam {self.beams}" if self.method == "beam" else "greedy"
