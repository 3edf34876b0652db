"""The audio side of an evaluation protocol: what is done to a clip before the model gets it.

Shapes: T = samples.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr

from pipeline import audio, sources
from pipeline.sources import AudioLocation

Crop = Literal["", "first", "middle", "random"]
Fill = Literal["", "zeros", "repeat", "loop"]


@dataclass(frozen=True, kw_only=True)
class View:
    """How a clip is read; the default reads it as it is, and the model's own policy takes it from there."""

    length_s: float = 0.0
    """Seconds that `crop` and `fill` bring a clip to."""
    crop: Crop = ""
    """The part that is left of a longer clip. `random` depends on the samples alone: it is the same in every run."""
    fill: Fill = ""
    """What follows a shorter clip, and counts as sound from then on: zeros; `repeat` is the whole clip as often as it fits,
    then zeros (LAION-CLAP); `loop` the clip again and again, the last one cut (MS CLAP)."""
    through_hz: int = 0
    """Rate that the audio is brought to before it is brought to the model's; 0 for the model's at once."""

    @property
    def name(self) -> str:
        """Return a name for files, empty for the default."""
        parts = [f"{self.crop}{self.fill}{self.length_s:g}s"] if self.crop or self.fill else []
        return "-".join([*parts, f"{self.through_hz}hz"] if self.through_hz else parts)

    def read(self, location: AudioLocation, sample_rate_hz: int) -> np.ndarray | str:
        """Return the samples of a clip at a rate, int16 (T,), or the reason why it cannot be read."""
        samples = sources.read_or_reason(location, self.through_hz or sample_rate_hz)
        if isinstance(samples, str):
            return samples
        if self.through_hz and self.through_hz != sample_rate_hz:
            scaled = samples.astype(np.float32) / audio.INT16_FULL_SCALE
            samples = audio.to_int16(soxr.resample(scaled, self.through_hz, sample_rate_hz, quality="HQ"))
        return self.fit(samples, round(self.length_s * sample_rate_hz))

    def fit(self, samples: np.ndarray, length: int) -> np.ndarray:
        """Return samples (T,) after `crop` and `fill` to `length` samples."""
        excess = len(samples) - length
        if excess > 0 and self.crop:
            starts = {"first": 0, "middle": excess // 2, "random": zlib.crc32(samples.tobytes()) % (excess + 1)}
            return samples[starts[self.crop] :][:length]
        if excess < 0 and self.fill == "zeros":
            return np.pad(samples, (0, -excess))
        if excess < 0 and self.fill == "repeat":
            whole = np.tile(samples, length // len(samples))
            return np.pad(whole, (0, length - len(whole)))
        if excess < 0 and self.fill == "loop":
            return np.resize(samples, length)
        return samples


AS_IT_IS = View()
