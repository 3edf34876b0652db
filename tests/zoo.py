"""Odd and broken audio files, and what must become of each: one table for the decoder's tests and for a whole job."""

import io
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from pipeline import ffmpeg

RATE_HZ = 32_000
DAY_S = 86_400


class Case(NamedTuple):
    """One file of the zoo."""

    name: str
    data: bytes | None  # None: listed, not written; b"/": a folder of that name
    reason: str  # of the AudioError; "" decodes
    duration_s: float = 1.0  # of what decodes
    why: str = ""


def tone(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    """Return a quiet chord with a little noise, float32 (T, C)."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.01, len(t))
    wave = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 97 * t) + noise
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(samples: np.ndarray, rate_hz: int = RATE_HZ, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return samples as a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def transcoded(suffix: str, *flags: str) -> bytes:
    """Return one second as a file that only ffmpeg makes."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, f"out{suffix}")
        source.write_bytes(encoded(tone(1.0)))
        command = [ffmpeg.program(), "-v", "error", "-i", str(source), *flags, "-strict", "-2", str(target)]
        subprocess.run(command, check=True)
        return target.read_bytes()


def wav_claiming(seconds: float, size: int | None = None) -> bytes:
    """Return a WAV whose header claims a length; `size` overrides the data size."""
    body = encoded(tone(1.0))[44:]
    claimed = round(seconds * RATE_HZ * 2) if size is None else size
    head = b"RIFF" + struct.pack("<I", min(claimed + 36, 0xFFFFFFFF)) + b"WAVEfmt "
    return (
        head
        + struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, RATE_HZ * 2, 2, 16)
        + b"data"
        + struct.pack("<I", claimed)
        + body
    )


def flac_claiming(samples: int) -> bytes:
    """Return a FLAC of one second whose header states another number of samples; 0 means unknown."""
    data = bytearray(encoded(tone(1.0), kind="FLAC"))
    packed = int.from_bytes(data[18:26], "big")
    data[18:26] = ((packed >> 36 << 36) | samples).to_bytes(8, "big")
    return bytes(data)


def wav_of_rate(rate_hz: int) -> bytes:
    """Return a WAV whose header states an absurd rate."""
    data = bytearray(encoded(tone(0.1)))
    data[24:32] = struct.pack("<II", rate_hz, min(rate_hz * 2, 0xFFFFFFFF))
    return bytes(data)


def cases() -> list[Case]:
    """Return the zoo."""
    wav, flac, ogg, mp3 = (encoded(tone(1.0), kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3"))
    odd = tone(1.0).copy()
    odd[100:110], odd[200], odd[300] = np.nan, np.inf, -np.inf
    return [
        Case("plain-wav.wav", wav, ""),
        Case("plain-flac.flac", flac, ""),
        Case("plain-ogg.ogg", ogg, ""),
        Case("plain-mp3.mp3", mp3, ""),
        Case("plain-opus.opus", encoded(tone(1.0, 48_000), 48_000, "OGG", "OPUS"), ""),
        Case("UPPER.WAV", wav, ""),
        Case("-leading.wav", wav, "", why="no flag"),
        Case("späße 音.flac", flac, "", why="a name in Unicode, with a blank"),
        Case("100%25 #1+a&b.wav", wav, "", why="no URI escapes"),
        Case("vorbis-inside.wav", ogg, "", why="the suffix lies, the bytes count"),
        Case("eight-channels.wav", encoded(tone(1.0, channels=8)), "", why="averaged"),
        Case("rate192k.wav", encoded(tone(1.0, 192_000), 192_000), ""),
        Case("rate8k.wav", encoded(tone(1.0, 8_000), 8_000), ""),
        Case("bits24.wav", encoded(tone(1.0), subtype="PCM_24"), ""),
        Case("bits8.wav", encoded(tone(1.0), subtype="PCM_U8"), ""),
        Case("a-law.wav", encoded(tone(1.0), subtype="ALAW"), ""),
        Case("nan-inf.wav", encoded(odd, subtype="FLOAT"), ""),
        Case(
            "nan-inf-stereo-44k.wav", encoded(np.repeat(odd, 2, axis=1), 44_100, subtype="FLOAT"), "", 32_000 / 44_100
        ),
        Case("one-sample.wav", encoded(tone(1 / RATE_HZ)), "", 1 / RATE_HZ),
        Case("ten-minutes.flac", encoded(np.zeros((600 * 1_000, 1), np.float32), 1_000, "FLAC"), "", 600.0),
        Case("streamed-wav.wav", wav_claiming(0, size=0xFFFFFFFF), "", why="written to a pipe: no size known"),
        Case("streamed-flac.flac", flac_claiming(0), "", why="written to a pipe: no length known"),
        Case("cut-mp3.mp3", mp3[: len(mp3) // 2], "truncated"),
        Case("too-long.flac", encoded(np.zeros((601 * 1_000, 1), np.float32), 1_000, "FLAC"), "too_long"),
        Case("day-flac.flac", flac_claiming(DAY_S * RATE_HZ), "too_long", why="the header claims a day"),
        Case("day-wav.wav", wav_claiming(DAY_S / 4), "truncated", why="the header claims hours, the file ends"),
        Case("cut-flac.flac", flac[: len(flac) // 2], "truncated"),
        Case("cut-wav.wav", wav[: len(wav) // 2], "truncated"),
        Case("cut-ogg.ogg", ogg[: len(ogg) // 2], "truncated"),
        Case("empty.wav", b"", "empty"),
        Case("no-samples.wav", encoded(np.zeros((0, 1), np.float32)), "zero_length"),
        Case("text.wav", b"this is no sound at all\n" * 20, "not_audio"),
        Case("error-page.mp3", b"<!doctype html><title>404</title>" * 20, "not_audio"),
        Case("noise.flac", np.random.default_rng(1).bytes(5_000), "not_audio"),
        Case("rate-0.wav", wav_of_rate(0), "truncated", why="libsndfile refuses the header"),
        Case("rate-1Hz.wav", wav_of_rate(1), "bad_header"),
        Case("rate-4GHz.wav", wav_of_rate(2**32 - 1), "truncated", why="libsndfile refuses the header"),
        Case("phone.m4a", transcoded(".m4a", "-c:a", "aac"), "", why="AAC, by ffmpeg"),
        Case("browser.webm", transcoded(".webm", "-c:a", "libopus"), "", why="Opus in WebM, by ffmpeg"),
        Case("index-at-end.mp4", transcoded(".mp4", "-c:a", "aac"), "", why="ffmpeg has to seek"),
        Case("no-sound.m4a", b"\x00\x00\x00\x18ftypM4A " + bytes(200), "not_audio"),
        Case("gone.wav", None, "missing"),
        Case("a-folder.wav", b"/", "unreadable"),
    ]


def write(folder: Path) -> list[Case]:
    """Write the zoo into a folder and return its cases."""
    found = cases()
    for case in found:
        if case.data == b"/":
            (folder / case.name).mkdir()
        elif case.data is not None:
            (folder / case.name).write_bytes(case.data)
    return found
