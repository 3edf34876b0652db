"""Odd and broken audio files, and what must become of each: one table for the decoder's tests and for a whole job."""

import io
import struct
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from pipeline.audio import ffmpeg

RATE_HZ = 32_000
DAY_S = 86_400
FTYP = b"\x00\x00\x00\x18ftypM4A " + bytes(200)  # an m4a in which nothing follows
FILM = ("-f", "lavfi", "-i", "color=size=64x64:rate=5:duration=1")
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


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
    with soundfile.SoundFile(buffer, "w", rate_hz, samples.shape[1], subtype, format=kind) as file:
        for start in range(0, len(samples), 2**18):  # libsndfile 1.2.2 ends the process when Vorbis gets more at once
            file.write(samples[start : start + 2**18])
    return settled(buffer.getvalue())


def settled(data: bytes) -> bytes:
    """Return a file without what the clock put in: the serial number of an Ogg stream, the date of a WAV's PEAK chunk."""
    file = bytearray(data)
    if data[:4] == b"OggS":
        place = 0
        while place < len(data):
            lengths = data[place + 27 : place + 27 + data[place + 26]]
            end = place + 27 + len(lengths) + sum(lengths)
            file[place + 14 : place + 18] = struct.pack("<I", 1)
            file[place + 22 : place + 26] = bytes(4)  # the check sum is of the page without it
            file[place + 22 : place + 26] = struct.pack("<I", ogg_check_sum(bytes(file[place:end])))
            place = end
    elif (peak := data.find(b"PEAK", 0, 200)) > 0:
        file[peak + 12 : peak + 16] = bytes(4)
    return bytes(file)


def ogg_check_sum(page: bytes) -> int:
    """Return the CRC-32 of an Ogg page: polynomial 04c11db7, no reflection, nothing inverted."""
    table = _crc_table()
    crc = 0
    for byte in page:
        crc = crc << 8 & 0xFFFFFFFF ^ table[crc >> 24 ^ byte]
    return crc


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = list(range(256))
    for i in table[:]:
        crc = i << 24
        for _ in range(8):
            crc = crc << 1 & 0xFFFFFFFF ^ (0x04C11DB7 if crc >> 31 else 0)
        table[i] = crc
    return table


def transcoded(suffix: str, *flags: str, source: tuple[str, ...] = ()) -> bytes:
    """Return one second as a file that only ffmpeg makes; without ffmpeg the beginning of an m4a, which asks for it."""
    try:
        program = ffmpeg.program()
    except ffmpeg.Missing:
        return FTYP
    with tempfile.TemporaryDirectory() as folder:
        wav, target = Path(folder, "in.wav"), Path(folder, f"out{suffix}")
        wav.write_bytes(encoded(tone(1.0)))
        exact = ("-fflags", "+bitexact", "-flags", "+bitexact", "-strict", "-2")
        command = [program, "-v", "error", *(source or ("-i", str(wav))), *flags, *exact, str(target)]
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


def wav_with_odd_chunk(data: bytes) -> bytes:
    """Return a WAV with a chunk of odd size, and the byte that evens it out, before the samples."""
    return data[:36] + b"note" + struct.pack("<I", 5) + b"hello\0" + data[36:]


def cases() -> list[Case]:
    """Return the zoo: the same bytes at every call."""
    return [*_odd_names(), *_odd_sounds(), *_broken(), *_for_ffmpeg(), *_no_sound()]


def _odd_names() -> list[Case]:
    wav, flac, ogg = (encoded(tone(1.0), kind=kind) for kind in ("WAV", "FLAC", "OGG"))
    return [
        Case("plain-wav.wav", wav, ""),
        Case("plain-flac.flac", flac, ""),
        Case("UPPER.WAV", wav, ""),
        Case("-leading.wav", wav, "", why="no flag"),
        Case("späße 音.flac", flac, "", why="a name in Unicode, with a blank"),
        Case("100%25 #1+a&b.wav", wav, "", why="no URI escapes"),
        Case("vorbis-inside.wav", ogg, "", why="the suffix lies, the bytes count"),
    ]


def _odd_sounds() -> list[Case]:
    odd = tone(1.0).copy()
    odd[100:110], odd[200], odd[300] = np.nan, np.inf, -np.inf
    both, short = np.repeat(odd, 2, axis=1), tone(1 / RATE_HZ)
    return [
        Case("plain-ogg.ogg", encoded(tone(1.0), kind="OGG"), ""),
        Case("plain-mp3.mp3", encoded(tone(1.0), kind="MP3"), ""),
        Case("plain-opus.opus", encoded(tone(1.0, 48_000), 48_000, "OGG", "OPUS"), ""),
        Case("plain-aiff.aiff", encoded(tone(1.0), kind="AIFF"), ""),
        Case("plain-caf.caf", encoded(tone(1.0), kind="CAF"), ""),
        Case("eight-channels.wav", encoded(tone(1.0, channels=8)), "", why="averaged"),
        Case("rate192k.wav", encoded(tone(1.0, 192_000), 192_000), ""),
        Case("rate8k.wav", encoded(tone(1.0, 8_000), 8_000), ""),
        Case("bits24.wav", encoded(tone(1.0), subtype="PCM_24"), ""),
        Case("bits8.wav", encoded(tone(1.0), subtype="PCM_U8"), ""),
        Case("a-law.wav", encoded(tone(1.0), subtype="ALAW"), ""),
        Case("odd-chunk.wav", wav_with_odd_chunk(encoded(tone(1.0))), "", why="chunks begin at even places"),
        Case("nan-inf.wav", encoded(odd, subtype="FLOAT"), "", why="NaN is silence, the infinite clips"),
        Case("nan-inf-stereo-44k.wav", encoded(both, 44_100, subtype="FLOAT"), "", 32_000 / 44_100),
        Case("one-sample.wav", encoded(short), "", 1 / RATE_HZ),
        Case("one-sample-192k.wav", encoded(short, 192_000), "zero_length", why="none is left at 32 kHz"),
        Case("no-samples.wav", encoded(np.zeros((0, 1), np.float32)), "zero_length"),
        Case("ten-minutes.flac", encoded(np.zeros((600 * 1_000, 1), np.float32), 1_000, "FLAC"), "", 600.0),
        Case("too-long.flac", encoded(np.zeros((601 * 1_000, 1), np.float32), 1_000, "FLAC"), "too_long"),
        Case("streamed-wav.wav", wav_claiming(0, size=0xFFFFFFFF), "", why="written to a pipe: no size known"),
        Case("streamed-flac.flac", flac_claiming(0), "", why="written to a pipe: no length known"),
    ]


def _broken() -> list[Case]:
    wav, flac, ogg, mp3, aiff = (encoded(tone(1.0), kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF"))
    odd = wav_with_odd_chunk(wav)
    return [
        Case("cut-flac.flac", flac[: len(flac) // 2], "truncated"),
        Case("cut-wav.wav", wav[: len(wav) // 2], "truncated"),
        Case("cut-odd-chunk.wav", odd[: len(odd) // 2], "truncated"),
        Case("cut-aiff.aiff", aiff[: len(aiff) // 2], "truncated"),
        Case("cut-ogg.ogg", ogg[: len(ogg) // 2], "truncated", why="no page ends the stream"),
        Case("cut-mp3.mp3", mp3[: len(mp3) // 2], "truncated", why="playable, but its Xing header states the length"),
        Case("day-flac.flac", flac_claiming(DAY_S * RATE_HZ), "too_long", why="the header claims a day"),
        Case("day-wav.wav", wav_claiming(DAY_S / 4), "truncated", why="the header claims hours, the file ends"),
        Case("rate-0.wav", wav_of_rate(0), "bad_header"),
        Case("rate-1Hz.wav", wav_of_rate(1), "bad_header"),
        Case("rate-4GHz.wav", wav_of_rate(2**32 - 1), "bad_header"),
        Case("no-channel.wav", wav[:22] + b"\0\0" + wav[24:], "bad_header"),
    ]


def _for_ffmpeg() -> list[Case]:
    """What libsndfile does not know; where there is no ffmpeg all of it says so."""
    m4a, webm = (transcoded(suffix) for suffix in (".m4a", ".webm"))
    early = transcoded(".m4a", "-movflags", "+faststart")
    made = [
        Case("phone.m4a", m4a, "", why="AAC; its index is at the end, ffmpeg has to seek"),
        Case("index-first.mp4", early, ""),
        Case("browser.webm", webm, "", why="Opus"),
        Case("radio.aac", transcoded(".aac"), "", why="a stream without a container"),
        Case("old.wma", transcoded(".wma"), ""),
        Case("camera.avi", transcoded(".avi", "-c:a", "pcm_s16le"), "", why="begins with RIFF as WAV does"),
        Case("strange-codec.wav", transcoded(".wav", "-c:a", "adpcm_yamaha"), "", why="libsndfile knows WAV, not this"),
        Case("cut-index-at-end.m4a", m4a[: len(m4a) // 2], "truncated"),
        Case(
            "cut-index-first.m4a", early[: len(early) // 2], "truncated", why="ffmpeg decodes the half and is content"
        ),
        Case("no-index.m4a", FTYP, "truncated"),
        Case("cut-webm.webm", webm[: len(webm) // 2], "truncated"),
        Case("silent-film.mp4", transcoded(".mp4", "-c:v", "mpeg4", source=FILM), "not_audio"),
        Case("playlist.aac", b"ID3\x04" + bytes(6) + PLAYLIST, "not_audio", why="may not make ffmpeg open other files"),
    ]
    return made if m4a != FTYP else [case._replace(reason="needs_ffmpeg") for case in made]


def _no_sound() -> list[Case]:
    return [
        Case("empty.wav", b"", "empty"),
        Case("text.wav", b"this is no sound at all\n" * 20, "not_audio"),
        Case("error-page.mp3", b"<!doctype html><title>404</title>" * 20, "not_audio"),
        Case("noise.flac", np.random.default_rng(1).bytes(5_000), "not_audio"),
        Case("image.wav", b"RIFF\x24\0\0\0WEBPVP8 " + bytes(28), "not_audio"),
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
