"""Decode what libsndfile does not know (m4a, webm, wma, ...) with an ffmpeg program, in a process that can be stopped."""

import io
import shutil
import subprocess
import tempfile
from functools import lru_cache

import numpy as np
import soundfile

FALLBACK = "install ffmpeg, or the extra blat-ray[ffmpeg], on every node"


class Missing(Exception):
    """There is no ffmpeg on this machine."""


class Failed(Exception):
    """ffmpeg could not decode the bytes; the text is the end of what it said."""


@lru_cache(maxsize=1)
def program() -> str:
    """Return the ffmpeg to use: the one on PATH, else that of the imageio-ffmpeg package. Raises Missing."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg  # here: it is optional

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise Missing(FALLBACK) from None


def decode(data: bytes, most_s: float, timeout_s: float) -> tuple[np.ndarray, int]:
    """Decode the first audio stream.

    Args:
        data: a whole encoded file.
        most_s: decode no more than this, in seconds.
        timeout_s: kill ffmpeg after this.

    Returns:
        float32 array (T, C) and the sample rate in Hz.

    Raises:
        Missing: there is no ffmpeg.
        Failed: it found no audio.
        TimeoutError: it was still at it.
    """
    with tempfile.NamedTemporaryFile() as file:  # a real file: the index of an mp4 may stand at its end
        file.write(data)
        file.flush()
        command = [
            program(), "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{file.name}",
            "-vn", "-map", "0:a:0", "-t", str(most_s), "-f", "wav", "-c:a", "pcm_f32le", "pipe:1",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"ffmpeg was stopped after {timeout_s} s") from None
    if done.returncode != 0 or not done.stdout:
        raise Failed(done.stderr.decode(errors="replace").strip().replace(file.name, "input")[-300:] or "no audio")
    samples, rate_hz = soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)
    return samples, rate_hz
