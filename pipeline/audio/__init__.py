"""Any sound file -> mono 16-bit samples, and samples -> FLAC."""

from pipeline.audio.canonical import MAX_DURATION_S, SAMPLE_RATE_HZ, encode_flac
from pipeline.audio.decoding import (
    INT16_FULL_SCALE,
    MAX_BYTES,
    REASONS,
    AudioError,
    decode,
    decode_part,
    fit,
    to_int16,
)

__all__ = [
    "INT16_FULL_SCALE",
    "MAX_BYTES",
    "MAX_DURATION_S",
    "REASONS",
    "SAMPLE_RATE_HZ",
    "AudioError",
    "decode",
    "decode_part",
    "encode_flac",
    "fit",
    "to_int16",
]
