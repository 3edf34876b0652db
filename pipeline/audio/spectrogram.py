"""A log-mel spectrogram of a clip as a small picture.

Shapes: T = samples of one clip, C = columns of a picture, R = its rows, F = frequency bins.
"""

import io
import math

import numpy as np
from PIL import Image

from pipeline.audio.decoding import INT16_FULL_SCALE

COLUMNS, ROWS = 500, 96  # pixels of a picture
WINDOW_S = 0.032  # one spectrum; 1,024 samples at 32 kHz
LOWEST_HZ = 40.0  # bottom of a picture; its top is half the sample rate
RANGE_DB = 70.0  # from the brightest color to the darkest
FAINTEST_DB = -50.0  # re full scale: a clip whose loudest point is below is drawn as faint as it is
SILENCE_POWER = 1e-12  # -120 dB, added before the logarithm
NUM_SHADES = 64  # as many as the eye separates here, and a third smaller than with 256
MAGMA = "000004 1c1044 4f127b 812581 b5367a e55964 fb8761 fec287 fcfdbf"  # matplotlib's perceptual map at every eighth


def draw(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    """Draw a clip as a PNG of 500 x 96: time to the right, mel frequency upward, brighter is louder.

    Args:
        samples: int16 array (T,) of any length.
        sample_rate_hz: rate of the samples; half of it is the upper edge of the picture.
    """
    level_db = 10 * np.log10(_mel_power(samples, sample_rate_hz) + SILENCE_POWER)  # (R, C)
    brightest_db = max(float(level_db.max()), FAINTEST_DB)
    share = np.clip(1 + (level_db - brightest_db) / RANGE_DB, 0, 1)
    picture = Image.fromarray(np.rint(share[::-1] * (NUM_SHADES - 1)).astype(np.uint8))
    picture.putpalette(_palette())
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    return png.getvalue()


def _mel_power(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return power by mel band and column (R, C), lowest band first; a sine at full scale has 1."""
    window = round(WINDOW_S * sample_rate_hz)
    taper = np.hanning(window)
    padded = np.pad(samples / INT16_FULL_SCALE, window)
    spectra = np.lib.stride_tricks.sliding_window_view(padded, window)
    filters = _mel_filters(sample_rate_hz, 2 * window)
    column = len(samples) / COLUMNS  # samples in one column
    # A column is the mean of its spectra: half a window apart, they pass over no part of a long clip.
    num_spectra = max(1, math.ceil(column / (window / 2)))
    total = np.zeros((ROWS, COLUMNS))
    for i in range(num_spectra):
        centers = ((np.arange(COLUMNS) + (i + 0.5) / num_spectra) * column).astype(int)
        bins = np.fft.rfft(spectra[centers + window - window // 2] * taper, 2 * window)  # (C, F)
        total += filters @ (np.abs(bins) ** 2).T
    return total / num_spectra / (taper.sum() / 2) ** 2


def _mel_filters(sample_rate_hz: int, num_points: int) -> np.ndarray:
    """Return triangles (R, F) that are evenly spaced on the mel scale and at least one bin wide."""
    low_mel, high_mel = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST_HZ, sample_rate_hz / 2))  # O'Shaughnessy
    centers_hz = 700 * (10 ** (np.linspace(low_mel, high_mel, ROWS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(num_points, 1 / sample_rate_hz)
    reach_hz = np.maximum(np.gradient(centers_hz), bins_hz[1])
    return np.clip(1 - np.abs(bins_hz - centers_hz[1:-1, None]) / reach_hz[1:-1, None], 0, None)


def _palette() -> list[int]:
    """Return the colors of the shades, darkest first, as red, green and blue in turn."""
    knots = np.array([list(bytes.fromhex(color)) for color in MAGMA.split()])  # (9, 3)
    at = np.linspace(0, len(knots) - 1, NUM_SHADES)
    colors = np.stack([np.interp(at, np.arange(len(knots)), channel) for channel in knots.T], axis=1)
    return np.rint(colors).astype(int).ravel().tolist()
