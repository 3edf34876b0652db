"""Decode formats that libsndfile does not read (m4a, webm, wma, ...) with an ffmpeg process that can be stopped."""

import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO

import soundfile

REMEDY = "install ffmpeg, or the extra blat-ray[ffmpeg], on every node"
START = re.compile(  # of containers that libsndfile does not read, or not with every codec
    rb"(?s)....(ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|\x30\x26\xb2\x75|\xff[\xf0\xf1\xf8\xf9]|ID3|#!AMR|FLV|G@[\x00\x11]"
    rb"|\x00\x00\x01\xba|wvpk|TTA1|MAC |MPCK|\x0bw|OggS|caff|RIFF....(WAVE|AVI )"
)
FORMATS = (  # no playlists and no lists of files: a clip must not make ffmpeg open others
    "aac,ac3,amr,ape,asf,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,tta,wav,wv"
)
NO_PROGRAM = (
    errno.ENOENT,
    errno.EACCES,
    errno.ENOEXEC,
)  # what starting a file that is no program for this machine gives
MAX_LOG_BYTES = 2**16  # at the end of ffmpeg's log, that are read
CUT_SHORT = ("moov atom not found", "partial file", "File ended prematurely")  # in the log on a file that ends early


class Failed(Exception):
    """ffmpeg could not decode the bytes; the message is the end of its log. `reason` is a key of `audio.REASONS`."""

    reason = ""  # depends on the bytes


class Missing(Failed):
    """There is no ffmpeg on this machine."""

    reason = "needs_ffmpeg"


class CutShort(Failed):
    """The file is not whole. ffmpeg decodes the part that is there."""

    reason = "truncated"


class Late(Failed):
    """ffmpeg was stopped at the time limit."""

    reason = "timeout"


@lru_cache(maxsize=1)
def program() -> str:
    """Return the ffmpeg to use: the one on PATH, else that of the imageio-ffmpeg package. Raises Missing."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg  # here: it is optional

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise Missing(REMEDY) from None


def may_read(data: bytes) -> bool:
    """Return whether bytes begin like a container that ffmpeg reads."""
    return START.match(data) is not None


@contextmanager
def decoded(data: bytes, timeout_s: float) -> Iterator[soundfile.SoundFile]:
    """Open the first audio stream while ffmpeg decodes it; only the blocks that are read from it are in memory.

    The context may be left before the end of the stream: then ffmpeg is stopped, and the rest is not checked.

    Args:
        data: a whole encoded file.
        timeout_s: kill ffmpeg after this.

    Raises:
        Missing: there is no ffmpeg.
        Failed: on leaving; there is no audio, it ends early, or it took too long. The samples read are of no use then.
        OSError: there is no room for a temporary file, no process can be started, or another one killed ffmpeg.
    """
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryFile() as log:
        file.write(data)  # a real file: the index of an mp4 may stand at its end
        file.flush()
        process, pipe = _start(file.name, log)
        opened = left_early = False
        with (
            _reading(process, pipe, timeout_s),
            suppress(soundfile.LibsndfileError),  # ffmpeg gave no samples; its log has the cause
            soundfile.SoundFile(pipe.fileno(), closefd=False) as stream,
        ):
            opened = True
            yield stream
            if left_early := bool(pipe.read(1)):
                process.kill()
        if not left_early:
            _check(process.returncode or (0 if opened else -1), _tail(log).replace(file.name, "input"))


@contextmanager
def _reading(process: subprocess.Popen[bytes], pipe: IO[bytes], timeout_s: float) -> Iterator[None]:
    """Kill a process at a time limit while its output is read, and leave no process behind. Raises Late."""
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    try:
        yield
    except Exception:
        process.kill()
        if not expired.is_set():
            raise
    finally:
        pipe.close()  # if there is more, ffmpeg ends with a broken pipe
        process.wait()
        timer.cancel()
    if expired.is_set():
        raise Late(f"ffmpeg was stopped after {timeout_s} s")


def _check(code: int, log: str) -> None:
    if any(message in log for message in CUT_SHORT):
        raise CutShort(f"ffmpeg: {log[-300:]}")
    if code == -signal.SIGKILL:  # not by us; most often for lack of memory
        raise OSError(errno.ENOMEM, "ffmpeg was killed while it decoded")
    if code != 0:
        raise Failed(f"ffmpeg: {log[-300:] or code}")


def _tail(log: IO[bytes]) -> str:
    """Return the end of a log, without addresses: the same file gets the same text."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
    return re.sub(r" @ 0x[0-9a-f]+", "", log.read().decode(errors="replace")).strip()


def _start(name: str, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start decoding a file into a pipe as AU, whose header states no length and sets no limit."""
    command = [
        program(), "-nostdin", "-v", "error", "-threads", "1", "-protocol_whitelist", "file,pipe",
        "-format_whitelist", FORMATS, "-i", f"file:{name}",
        "-vn", "-sn", "-dn", "-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1",
    ]  # fmt: skip
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    except OSError as error:
        if error.errno not in NO_PROGRAM:
            raise
        raise Missing(f"{command[0]} cannot be started ({error.strerror}); {REMEDY}") from error
    assert process.stdout is not None
    return process, process.stdout
