"""The progress of a long stage: a bar on a terminal, otherwise a log line every ten seconds."""

import logging
import sys
import time

from tqdm import tqdm

LOG_EVERY_S = 10.0


class Progress:
    """Counts the finished items of a stage, and shows the count."""

    def __init__(self, stage: str, unit: str, total: int | None = None) -> None:
        self.stage, self.unit, self.total, self.done = stage, unit, total, 0
        self.log = logging.getLogger(f"pipeline.{stage}")
        self.started = self.last_logged = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self.bar = tqdm(desc=stage, unit=f" {unit}", total=total, file=sys.stderr) if on_terminal else None

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start, never 0."""
        return max(time.monotonic() - self.started, 1e-9)

    def add(self, count: int, note: str = "") -> None:
        """Count newly finished items; `note` is shown behind the count."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.last_logged >= LOG_EVERY_S or self.done == self.total:
            self.last_logged = time.monotonic()
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
