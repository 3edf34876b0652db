"""A span of time in a sound file, and whether a file of a given length contains it."""

import math
from typing import NamedTuple

MISSING_S = 0.1  # by which a file may end before the span does, as listed times are rounded


class Span(NamedTuple):
    """A part of a file, in seconds from its start."""

    start_s: float
    end_s: float  # 0: the end of the file

    @property
    def whole(self) -> bool:
        """Whether the span is the whole file."""
        return not (self.start_s or self.end_s)

    def impossible(self) -> str:
        """Return why no file can contain the span, or ''."""
        possible = 0 <= self.start_s < math.inf and (self.end_s == 0 or self.start_s < self.end_s < math.inf)
        return "" if possible else f"a part cannot begin at {self.start_s} s and end at {self.end_s} s"

    def edges(self, rate_hz: int, num_samples: int) -> tuple[int, int | None]:
        """Return the nearest samples of start and end, the end exclusive; None where the end is not known.

        Args:
            rate_hz: of the file.
            num_samples: of the file; 0 when that is not known.
        """
        first, last = round(self.start_s * rate_hz), round(self.end_s * rate_hz)
        if not self.end_s:
            return first, num_samples or None
        return first, min(last, num_samples) if num_samples else last

    def outside(self, rate_hz: int, num_samples: int) -> str:
        """Return why a file of so many samples does not contain the span, or ''."""
        file_s = num_samples / rate_hz
        if (self.start_s < file_s or not self.start_s) and self.end_s <= file_s + MISSING_S:
            return ""
        end = f"{self.end_s:g} s" if self.end_s else "the end"
        return f"the part is {self.start_s:g} s to {end}, the file has {file_s:.2f} s"
