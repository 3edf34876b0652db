"""How far a long stage is: a bar on a terminal, else a plain line every ten seconds."""

import logging
import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts what is done of a stage and tells it."""

    def __init__(self, stage: str, unit: str, total: int | None = None) -> None:
        self.stage, self.unit, self.total, self.done = stage, unit, total, 0
        self.log = logging.getLogger(f"pipeline.{stage}")
        self.started = self.told = time.monotonic()
        shown = sys.stderr.isatty()
        self.bar = tqdm(desc=stage, unit=f" {unit}", total=total, file=sys.stderr) if shown else None

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start, never 0."""
        return max(time.monotonic() - self.started, 1e-9)

    def add(self, count: int, note: str = "") -> None:
        """Count what is newly done; `note` is what else to say."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.told >= LINE_EVERY_S or self.done == self.total:
            self.told = time.monotonic()
            self.log.info("%s: %s", self.stage, "; ".join(filter(None, (self._line(), note))))
        if self.bar is not None and self.done == self.total:
            self.bar.close()

    def _line(self) -> str:
        rate = self.done / self.elapsed_s
        if self.total is None:
            return f"{self.done:,} {self.unit}, {rate:,.1f} a second"
        left_s = (self.total - self.done) / max(rate, 1e-9)
        return f"{self.done:,} of {self.total:,} {self.unit}, {rate:,.1f} a second, {_clock(left_s)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
