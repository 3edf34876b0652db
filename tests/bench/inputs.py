"""Clips to measure with: procedural ones, in the formats that users bring, and how fast their FLAC decodes at best."""

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from pipeline import audio, sources
from pipeline.stages import synth
from tests.bench.ratio import CORES
from tests.bench.sizes import Sizes

Decoder = Callable[[bytes], np.ndarray]
Format = Literal["flac", "wav", "wav 44.1 kHz stereo"]
CHUNKS = 8  # shares of the clips for each process, so that all end at the same time


class Range(NamedTuple):
    """Bytes that hold the FLAC of a clip."""

    path: str
    offset: int = 0
    size: int = -1  # to the end


def stage(*words: str) -> list[str]:
    """Return the command of a stage, such as pipeline, synth, tiny."""
    return [sys.executable, "-m", *words]


def run(command: Sequence[str], **environment: str) -> str:
    """Run a command to its end and return what it printed; its messages are shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def write_corpus(folder: Path, sizes: Sizes) -> Path:
    """Write the different sounds once; return their listing."""
    listing = folder / "corpus" / "tagged_segments.csv"
    if not listing.exists():
        counts = {"num_captioned": 0, "num_evaluation": 0, "num_tagged": sizes.sounds}
        synth.run(synth.SynthConfig(out=str(folder / "corpus"), clip_s=sizes.clip_s, **counts))
    return listing


def write_captioner(folder: Path) -> Path:
    """Train a captioner for seconds; return its folder."""
    corpus, captioner = folder / "tiny_corpus", folder / "captioner"
    if not captioner.exists():
        run(stage("pipeline", "synth", "tiny", "--out", str(corpus)))
        run(
            stage(
                "train",
                "captioner",
                "tiny",
                "--source",
                str(corpus / "captioned_segments.csv"),
                "--out",
                str(captioner),
            )
        )
    return captioner


def write_clips(folder: Path, kind: Format, count: int, sizes: Sizes) -> Path:
    """Write an audio folder of so many clips in one format; return the folder, which is a source."""
    source = folder / f"{kind} {count}".replace(" ", "_")
    if source.exists():
        return source
    listed = sources.read_clips(str(write_corpus(folder, sizes)))
    (source / "audio").mkdir(parents=True)
    (source / "sounds").mkdir()
    suffix = "flac" if kind == "flac" else "wav"
    originals = []
    for clip in listed[:count]:
        path = source / "sounds" / f"{clip.key}.{suffix}"
        path.write_bytes(_encoded(Path(clip.uri).read_bytes(), kind))
        originals.append(path)
    with open(source / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "labels"])
        for number in range(count):
            os.link(originals[number % len(originals)], source / "audio" / f"{number}.{suffix}")
            table.writerow([f"{number}.{suffix}", "|".join(listed[number % len(listed)].tags)])
    return source


def flac_files(source: Path) -> list[Range]:
    """Return the files of a source in FLAC, as ranges."""
    return [Range(str(path)) for path in sorted((source / "audio").glob("*.flac"))]


class RawDecoder:
    """The limit: a decoder in one process for each core, on bytes that are in memory after the first pass."""

    def __init__(self, pool: ProcessPoolExecutor, ranges: Sequence[Range], decode: Decoder) -> None:
        """Decode all of them once, so that the processes have started and the files are in the page cache."""
        self.pool, self.ranges, self.work = pool, ranges, partial(_decode_all, decode=decode)
        self.shares = [ranges[i :: CORES * CHUNKS] for i in range(CORES * CHUNKS)]
        self()

    def __call__(self) -> float:
        """Return the clips that all cores decode in a second."""
        started = time.perf_counter()
        done = sum(self.pool.map(self.work, [share for share in self.shares if share]))
        assert done == len(self.ranges)
        return done / (time.perf_counter() - started)


def decode_plainly(flac: bytes) -> np.ndarray:
    """Decode with soundfile alone."""
    return soundfile.read(io.BytesIO(flac), dtype="int16")[0]


@contextmanager
def raw_decoder(ranges: Sequence[Range], decode: Decoder = decode_plainly) -> Iterator[RawDecoder]:
    """Hold the processes of a `RawDecoder`."""
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        yield RawDecoder(pool, ranges, decode)


def _decode_all(ranges: Sequence[Range], decode: Decoder) -> int:
    for path, offset, size in ranges:
        with open(path, "rb") as file:
            file.seek(offset)
            decode(file.read(size))
    return len(ranges)


def _encoded(flac: bytes, kind: Format) -> bytes:
    if kind == "flac":
        return flac
    samples = audio.decode(flac)
    rate_hz = audio.SAMPLE_RATE_HZ
    if kind == "wav 44.1 kHz stereo":
        rate_hz = 44_100
        samples = np.repeat(soxr.resample(samples, audio.SAMPLE_RATE_HZ, rate_hz)[:, None], 2, axis=1)
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate_hz, format="WAV", subtype="PCM_16")
    return encoded.getvalue()
