"""Clips that are left out for their audio: silence and a few milliseconds have nothing to caption."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline import audio
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AudioFilterConfig:
    """Which clips are left out for their audio. Part of a job's identity: a job continues with the values it began with."""

    silence_dbfs: float | None = -70.0
    """Leave out clips without a sample above this, in dB of full scale, as `silent`; None keeps them."""
    min_s: float = 0.0
    """Leave out clips shorter than this many seconds, as `too_short`."""
    drop_copies: bool = False
    """Leave out clips that hold the recording of an earlier one, as `audio_copy`. All clips are read once more, before
    the first is captioned."""

    def check(self) -> None:
        """Raise InputError for an impossible threshold."""
        if self.silence_dbfs is not None and not self.silence_dbfs <= 0:
            raise InputError("--audio-filter.silence-dbfs", self.silence_dbfs, "use 0 or less, or None")
        if not 0 <= self.min_s <= audio.MAX_DURATION_S:
            raise InputError("--audio-filter.min-s", self.min_s, f"use seconds from 0 to {audio.MAX_DURATION_S}")

    def reject(self, samples: np.ndarray) -> tuple[str, str] | None:
        """Return the reason and the detail why a clip is left out, or None.

        Args:
            samples: int16 array (T,) at the rate of shards.
        """
        seconds = len(samples) / audio.SAMPLE_RATE_HZ
        if seconds < self.min_s:
            return "too_short", f"{seconds:.3f} s are less than {self.min_s:g} s"
        if self.silence_dbfs is None:
            return None
        peak = max(int(samples.max()), -int(samples.min())) / audio.INT16_FULL_SCALE
        if peak > 10 ** (self.silence_dbfs / 20):
            return None
        return "silent", f"the loudest sample has {20 * math.log10(peak):.1f} dBFS" if peak else "every sample is 0"

    def __str__(self) -> str:
        silent = [] if self.silence_dbfs is None else [f"silent: no sample above {self.silence_dbfs:g} dBFS"]
        short = [f"too short: below {self.min_s:g} s"] if self.min_s else []
        copies = ["copies of the recording of an earlier clip"] if self.drop_copies else []
        return "; ".join([*silent, *short, *copies]) or "nothing"


OFF = AudioFilterConfig(silence_dbfs=None)  # as in jobs that began before there was a filter
