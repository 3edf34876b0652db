"""What requests are answered from: the searcher of an index, the sound of its clips, and their pictures.

Names of folders stay on the server: clips and datasets go out under the last part of theirs.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from eval.search import Hit, Query, Searcher
from eval.serving.errors import RequestError
from eval.serving.ranges import File, in_memory
from pipeline import audio, storage
from pipeline.audio import AudioError, spectrogram
from pipeline.errors import InputError, JobError
from pipeline.sources import AudioLocation

CACHE_BYTES = 128 * 2**20  # of pictures and of sound that is encoded here, together
MAX_CACHED_BYTES = (
    40 * 2**20
)  # of one value, so that players seek in the longest clip: 600 s at 32 kHz have 38 MB at most
MAX_READS = 8  # files at a time that are read whole; each may have hundreds of megabytes
START_BYTES = 16  # of a sound, by which `MEDIA_TYPES` are known
DECODE_TIMEOUT_S = 10.0
CLIP_ID = re.compile(r"[\w.~-]{1,200}", re.ASCII)
PARAMETERS = {  # of the API, by the flag that the searcher's errors name
    "TEXT": "text", "--tags": "tags", "--not": "without", "--like": "like", "--k": "k", "--mode": "mode",
    "--text-weight": "text_weight",
}  # fmt: skip
MEDIA_TYPES = (  # by the first bytes; what browsers do not play is sent as FLAC
    (re.compile(rb"fLaC"), "audio/flac"),
    (re.compile(rb"(?s)RIFF....WAVE"), "audio/wav"),
    (re.compile(rb"OggS"), "audio/ogg"),
    (re.compile(rb"ID3|\xff[\xf2\xf3\xfa\xfb]"), "audio/mpeg"),
)


class Service:
    """Answers for one index, from several threads at once."""

    def __init__(self, searcher: Searcher, max_upload_s: float) -> None:
        self.searcher, self.max_upload_s = searcher, max_upload_s
        self.cores = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))  # computing at a time; others wait
        self.reads = threading.BoundedSemaphore(MAX_READS)
        self.cache = _Cache(CACHE_BYTES)

    def search(self, query: Query) -> list[Hit]:
        """Return the hits, best first. Raises RequestError for a query that has no answer."""
        if query.like:
            self.clip(query.like)
        with self.cores, _shown_errors():
            return self.searcher.search(query)

    @property
    def tags(self) -> list[tuple[str, int]]:
        """Return the tags of the index as it is now, and how many clips have each."""
        return self.searcher.tags()

    def clip(self, clip_id: str) -> Hit:
        """Return one clip. Raises RequestError 404."""
        with _found(clip_id):
            return self.searcher.clip(clip_id)

    def sound(self, clip_id: str) -> File:
        """Return the encoded sound of a clip. Raises RequestError 404 also where the sound is gone.

        What players play is read where it lies. The rest is encoded: parts of recordings, rows of Parquet files and formats
        that browsers do not know.
        """
        with _found(clip_id):
            location = self.searcher.location(clip_id)
        tag, stored = _look_up(location)
        if stored and (kind := media_type(self.cache.get(f"start {tag}", lambda: stored.read(0, START_BYTES)))):
            return dataclasses.replace(stored, media_type=kind)
        content = self.cache.get(f"sound {tag}", lambda: self._read(clip_id))
        return in_memory(content, media_type(content), tag)

    def picture(self, clip_id: str) -> File:
        """Return the spectrogram of a clip, as PNG. Raises RequestError as `sound` does."""
        sound = self.sound(clip_id)
        content = self.cache.get(f"picture {sound.tag}", lambda: self._draw(sound))
        return in_memory(content, "image/png", sound.tag)

    def samples(self, content: bytes) -> np.ndarray:
        """Decode a sound to search with; int16 (T,) at the rate of the model. Raises RequestError where it is none."""
        try:
            with self.cores:
                samples = audio.decode(content, self.searcher.sample_rate_hz, DECODE_TIMEOUT_S)
        except AudioError as error:
            raise RequestError(415, f"The file cannot be used: {audio.REASONS[error.reason]}.") from None
        seconds = len(samples) / self.searcher.sample_rate_hz
        if seconds > self.max_upload_s:
            raise RequestError(413, f"The sound has {seconds:.0f} s; send {self.max_upload_s:g} s at most.")
        return samples

    def _read(self, clip_id: str) -> bytes:
        with _gone(), self.reads:
            content = self.searcher.audio(clip_id)
            return content if media_type(content) else audio.encode_flac(audio.decode(content))

    def _draw(self, sound: File) -> bytes:
        with self.reads:
            content = sound.read(0, sound.size)
        try:
            with self.cores:
                return spectrogram.draw(audio.decode(content), audio.SAMPLE_RATE_HZ)
        except AudioError:
            raise RequestError(404, "The sound of this clip is damaged; it has no picture.") from None


def media_type(content: bytes) -> str:
    """Return the media type of sound that browsers play, '' of other bytes."""
    return next((name for start, name in MEDIA_TYPES if start.match(content)), "")


def _look_up(location: AudioLocation) -> tuple[str, File | None]:
    """Return a tag of a clip's sound, which changes with its file; and the sound as it lies there, where that is a file or
    a part of one."""
    with _gone():
        ((file_size, changed_ns),) = storage.stamps([location.uri])
    tag = hashlib.sha256(repr((location, file_size, changed_ns)).encode()).hexdigest()[:32]
    in_parquet = location.offset >= 0 > location.size
    if in_parquet or not location.whole:
        return tag, None
    offset, size = (0, file_size) if location.offset < 0 else (location.offset, location.size)

    def read(first: int, count: int) -> bytes:
        with _gone():
            return storage.read(location.uri, offset + first, min(count, size - first))

    return tag, File(media_type="", size=size, tag=tag, read=read)


def public_name(uri: str) -> str:
    """Return the last part of a path or URI; an address of the web stays whole."""
    return uri if re.match(r"https?://", uri) else uri.rstrip("/").rpartition("/")[2]


@contextlib.contextmanager
def _found(clip_id: str) -> Iterator[None]:
    """Turn the searcher's error on an id that the index lacks into an answer."""
    if CLIP_ID.fullmatch(clip_id):
        with contextlib.suppress(KeyError):
            yield
            return
    raise RequestError(404, f"No clip has the id {clip_id[:200]!r}.")


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Turn errors on what an indexed clip's sound was made of into an answer."""
    try:
        yield
    except (JobError, OSError, AudioError):
        raise RequestError(404, "The sound of this clip cannot be read any more; index its dataset again.") from None


@contextlib.contextmanager
def _shown_errors() -> Iterator[None]:
    """Turn the searcher's errors on what a client wrote into answers. Other errors may name folders, and pass."""
    try:
        yield
    except InputError as error:
        flag, value, remedy = error.args
        if flag not in PARAMETERS:
            raise
        fault = InputError(PARAMETERS[flag], value, remedy.replace("--", ""))
        raise RequestError(400, f"{fault}.") from None


class _Cache:
    """The values that were used last, up to a number of bytes. Two threads may make the same value."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.values: OrderedDict[str, bytes] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return the value of a key."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        value = make()
        if len(value) > MAX_CACHED_BYTES:
            return value
        with self.lock:
            if key not in self.values:
                self.values[key] = value
                self.bytes += len(value)
            while self.bytes > self.max_bytes:
                self.bytes -= len(self.values.popitem(last=False)[1])
        return value
