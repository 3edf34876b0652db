"""Acoustic fingerprints: whether two clips hold the same recording, whatever its codec, rate, gain and cut.

After Haitsma & Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: each frame becomes 32 bits, the signs of
how the energy differences between neighbouring bands change over time.
Shapes: T = samples, F = frames of a clip, M = frames of an index.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr

from pipeline import audio

RATE_HZ = 5_500  # of the analysis; the bands end at 2 kHz
WINDOW_SAMPLES = 2_048  # 372 ms: long compared with the hop, so that the exact cut of a clip matters little
HOP_SAMPLES = 256  # 47 ms
MIN_HZ, MAX_HZ = 300.0, 2_000.0
NUM_BANDS = 33  # one more than the bits of a word
MIN_RMS = 1e-3  # of full scale, -60 dB: the bits of a quieter frame are noise
SILENCE = np.uint32(0)  # the word of such a frame; it matches nothing
MAX_ERRORS = 0.30  # share of bits that may differ; those of two recordings differ in half
MIN_FRAMES = 28  # that must overlap: 1.3 s
MAX_BUCKET = 20_000  # frames that share half a word; larger buckets cost time and distinguish nothing
CANDIDATES = 8  # diagonals compared bit by bit


class Match(NamedTuple):
    """A clip of the index with the same recording."""

    name: str
    bit_error_rate: float  # 0 to MAX_ERRORS
    seconds: float  # of sound that overlap


def compute(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return the fingerprint of a clip: a word of 32 bits for each frame.

    Args:
        samples: int16 array (T,).
        sample_rate_hz: their rate.

    Returns:
        uint32 array (F,), one word every 47 ms, SILENCE where there is no sound; (0,) for a clip below half a second.
    """
    low = soxr.resample(samples.astype(np.float32) / audio.INT16_FULL_SCALE, sample_rate_hz, RATE_HZ, quality="LQ")
    if len(low) < WINDOW_SAMPLES + HOP_SAMPLES:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(low, WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * _TAPER, axis=1)[:, : _EDGES[-1] + 1]) ** 2
    running = np.cumsum(power, axis=1)
    bands = running[:, _EDGES[1:]] - running[:, _EDGES[:-1]]  # (F + 1, 33)
    slope = bands[:, :-1] - bands[:, 1:]
    bits = slope[1:] > slope[:-1]  # (F, 32)
    words = np.ascontiguousarray(np.packbits(bits, axis=1, bitorder="little")).view("<u4")[:, 0]
    loud = np.sqrt((frames[1:] ** 2).mean(axis=1)) > MIN_RMS
    return np.where(loud, np.maximum(words, SILENCE + 1), SILENCE).astype(np.uint32)


class FingerprintIndex:
    """An index of clips, which finds a clip by any part of it.

    Half words are looked up: re-encoding changes some bits of most frames, but leaves one half of one frame in ten intact.
    Hits on one diagonal of (known frame, query frame) belong to one match.
    """

    def __init__(self, known: Iterable[tuple[str, np.ndarray]]) -> None:
        entries = list(known)
        self.names = [name for name, _ in entries]
        self.ends = np.cumsum([len(words) for _, words in entries], dtype=np.int64)
        self.words = np.concatenate([words for _, words in entries] or [np.zeros(0, np.uint32)])  # (M,)
        sounding = np.flatnonzero(self.words != SILENCE)
        self.buckets = []
        for half in range(2):
            values = _half(self.words[sounding], half)
            order = np.argsort(values, kind="stable")
            starts = np.searchsorted(values[order], np.arange(2**16 + 1))
            self.buckets.append((sounding[order].astype(np.int32), starts))

    def __len__(self) -> int:
        return len(self.names)

    def find(self, words: np.ndarray) -> Match | None:
        """Return the best match of a fingerprint (F,), or None."""
        sounding = np.flatnonzero(words != SILENCE)
        diagonals = np.concatenate([self._diagonals(words, sounding, half) for half in range(2)])
        if not len(diagonals):
            return None
        values, votes = np.unique(diagonals, return_counts=True)
        best = values[np.argsort(-votes, kind="stable")[:CANDIDATES]]
        found = [match for diagonal in best for match in self._compare(words, int(diagonal))]
        return min(found, key=lambda match: match.bit_error_rate, default=None)

    def _diagonals(self, words: np.ndarray, indices: np.ndarray, half: int) -> np.ndarray:
        """Return known frame minus query frame, for each pair that shares half a word."""
        frames, starts = self.buckets[half]
        values = _half(words[indices], half)
        first, count = starts[values], starts[values + 1] - starts[values]
        count = np.where(count > MAX_BUCKET, 0, count)
        inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        diagonals: np.ndarray = frames[np.repeat(first, count) + inside] - np.repeat(indices, count)
        return diagonals

    def _compare(self, words: np.ndarray, diagonal: int) -> Iterator[Match]:
        """Compare a query with the clips that it overlaps when query frame 0 lies on known frame `diagonal`."""
        last = min(diagonal + len(words), len(self.words))
        first_clip, last_clip = np.searchsorted(self.ends, (max(diagonal, 0), last - 1), side="right")
        for clip in range(first_clip, last_clip + 1):
            low, high = max(self.ends[clip - 1] if clip else 0, diagonal), min(self.ends[clip], last)
            known, query = self.words[low:high], words[low - diagonal : high - diagonal]
            both = (known != SILENCE) & (query != SILENCE)
            if both.sum() >= MIN_FRAMES:
                errors = float(np.bitwise_count(known[both] ^ query[both]).mean() / 32)
                if errors <= MAX_ERRORS:
                    yield Match(self.names[clip], errors, float(both.sum() * HOP_SAMPLES / RATE_HZ))


def _half(words: np.ndarray, half: int) -> np.ndarray:
    return (words >> np.uint32(16 * half) & np.uint32(0xFFFF)).astype(np.int64)


_TAPER = np.hanning(WINDOW_SAMPLES).astype(np.float32)
_EDGES = np.round(np.geomspace(MIN_HZ, MAX_HZ, NUM_BANDS + 1) * WINDOW_SAMPLES / RATE_HZ).astype(int)
