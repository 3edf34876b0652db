"""Decode any clip to mono 16-bit samples, and encode samples as FLAC.

Shapes: T = samples of one clip.
"""

import io

import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HZ = 32_000  # rate of every clip in a shard; PANNs and BLAT work at 32 kHz
MAX_DURATION_S = 600  # a header that claims more is refused before anything is allocated
MAX_BYTES = 512 * 2**20  # a larger encoded file is not read
INT16_FULL_SCALE = 32_768.0
KNOWN_STARTS = (b"fLaC", b"RIFF", b"OggS")  # bytes that begin so and cannot be read were audio once
UNKNOWN_LENGTH = 2**40  # libsndfile gives a number near 2**63 for a header without a length
STREAMED_WAV = 0x7FFFFFFF  # sizes from here on are what writes to a pipe leave in the header
OGG_END_OF_STREAM = 4  # flag in a page header
MPEG_FRAME_SAMPLES = 1_152  # an MPEG header's length is a whole number of frames; decoders drop a part of the last


class AudioError(Exception):
    """A clip that cannot be used. `reason` is one of the words in `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)  # both in args: a pickled exception is rebuilt from them
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


REASONS = {
    "missing": "no file at the listed place",
    "unreadable": "the file is there but cannot be opened",
    "too_large": f"the file has more than {MAX_BYTES} bytes",
    "empty": "the file has no bytes",
    "not_audio": "the bytes are not audio that libsndfile knows",
    "truncated": "the file ends before the length its header states",
    "zero_length": "the file is valid and holds no samples",
    "too_long": f"the header states more than {MAX_DURATION_S} s",
}


def decode(data: bytes, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Decode encoded audio to mono samples.

    Args:
        data: a whole encoded file (FLAC, WAV, Ogg, MP3, ... whatever libsndfile reads).
        sample_rate_hz: wanted rate; other rates are resampled with soxr HQ.

    Returns:
        int16 array (T,), channels averaged.

    Raises:
        AudioError: with the reason, when the bytes are empty, not audio, cut short, without samples or too long.
    """
    if not data:
        raise AudioError("empty", "0 bytes")
    _check_ending(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            stated = _stated_length(file)
            plain = file.subtype == "PCM_16" and file.channels == 1
            samples = file.read(
                stated or MAX_DURATION_S * file.samplerate, "int16" if plain else "float32", always_2d=True
            )
            rate_hz = file.samplerate
            slack = MPEG_FRAME_SAMPLES if "MPEG" in file.subtype else 0
    except soundfile.LibsndfileError as error:
        raise AudioError("truncated" if data[:4] in KNOWN_STARTS else "not_audio", str(error)) from error
    if len(samples) + slack < (stated or 0):
        raise AudioError("truncated", f"header states {stated} samples, {len(samples)} could be decoded")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate_hz != sample_rate_hz:
        mono = soxr.resample(_to_float(mono), rate_hz, sample_rate_hz, quality="HQ")
    if len(mono) == 0:
        raise AudioError("zero_length", f"{stated} samples at {rate_hz} Hz")
    return to_int16(mono)


def encode_flac(samples: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Encode int16 samples (T,) as FLAC; the same samples always give the same bytes."""
    assert samples.dtype == np.int16 and samples.ndim == 1, (samples.dtype, samples.shape)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def fit(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut (T,) to `num_samples`, and zero-pad at the end when it is shorter."""
    cut = samples[:num_samples]
    return np.pad(cut, (0, num_samples - len(cut)))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Round float samples in [-1, 1] to int16; NaN becomes 0, louder values clip; int16 passes through."""
    if samples.dtype == np.int16:
        return samples
    scaled = np.nan_to_num(samples) * INT16_FULL_SCALE
    return np.clip(np.rint(scaled), -INT16_FULL_SCALE, INT16_FULL_SCALE - 1).astype(np.int16)


def _to_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / INT16_FULL_SCALE if samples.dtype == np.int16 else samples


def _stated_length(file: soundfile.SoundFile) -> int | None:
    """Return the samples per channel that the header states, or None when it says it does not know (streamed FLAC)."""
    if file.frames == 0:
        raise AudioError("zero_length", f"header states 0 samples at {file.samplerate} Hz")
    if file.frames >= UNKNOWN_LENGTH:
        return None
    if file.frames > MAX_DURATION_S * file.samplerate:
        raise AudioError("too_long", f"header states {file.frames / file.samplerate:.0f} s")
    return int(file.frames)


def _check_ending(data: bytes) -> None:
    """Raise for WAV and Ogg files that end early: libsndfile reads what is there and does not tell."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        place = 12
        while place + 8 <= len(data) and data[place : place + 4] != b"data":
            place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        stated, held = int.from_bytes(data[place + 4 : place + 8], "little"), len(data) - place - 8
        if held < stated < STREAMED_WAV:
            raise AudioError("truncated", f"data chunk states {stated} bytes, the file holds {held}")
    if data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        if len(data) < last + 6 or not data[last + 5] & OGG_END_OF_STREAM:
            raise AudioError("truncated", "the last Ogg page does not end the stream")
