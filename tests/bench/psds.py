"""The sound detection score of many clips and classes: memory beside that of the scores themselves, and CPU time.

A part of `make bench`. One set alone, as a process of its own: `python -m tests.bench.psds CLIPS CLASSES FRAMES`, with 16000
400 32 for the size of AudioSet's strong evaluation set and frames of 320 ms. Scores are noise, higher where events are.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eval.metrics import psds, resamples
from eval.metrics.psds import Track
from tests.bench import inputs
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes

CLIP_S, MAX_EVENTS = 10.0, 8
RESAMPLES = 200
MAX_GROWTH = 1.2  # of memory without the scores, from a quarter of the clips to all of them


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one set."""

    clips: int
    classes: int
    frames: int
    scores_mb: float
    """The scores of all frames and classes, which are in memory already."""
    psds_mb: float
    """Peak of memory beyond them, their events and the imports."""
    cpu_s: float
    """Of both scenarios with their intervals."""
    scores: list[float]


def tracks(clips: int, classes: int, frames: int) -> list[Track]:
    """Return clips of so many frames, with one to eight events each."""
    rng, edges_s = np.random.default_rng(0), np.linspace(0, CLIP_S, frames + 1)
    found = []
    for _ in range(clips):
        scores = rng.standard_normal((frames, classes), dtype=np.float32)
        labels = rng.integers(classes, size=rng.integers(1, MAX_EVENTS + 1))
        start_s = rng.uniform(0, CLIP_S - 1, len(labels))
        end_s = np.minimum(start_s + 0.5 + rng.exponential(2.0, len(labels)), CLIP_S)
        for label, start, end in zip(labels, start_s, end_s, strict=True):
            scores[(edges_s[:-1] >= start) & (edges_s[:-1] < end), label] += 3.0
        found.append(Track(scores, edges_s, CLIP_S, labels, np.stack([start_s, end_s], axis=1)))
    return found


def score(clips: int, classes: int, frames: int) -> Measured:
    """Score a set as `eval grounding` does, in this process."""
    made = tracks(clips, classes, frames)
    weights = np.concatenate([np.ones((clips, 1)), resamples(clips, count=RESAMPLES)], axis=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here on
    before, started = _megabytes("VmRSS"), time.process_time()
    levels = psds.thresholds(made)
    values = [psds.score(psds.count(made, levels, each, weights), each) for each in psds.SCENARIOS.values()]
    return Measured(
        clips=clips,
        classes=classes,
        frames=frames,
        scores_mb=sum(track.scores.nbytes for track in made) / 1e6,
        psds_mb=_megabytes("VmHWM") - before,
        cpu_s=time.process_time() - started,
        scores=[float(value[0]) for value in values],
    )


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield how memory grows from a quarter of the clips to all of them, and the CPU time of a clip."""
    del folder
    clips, *shape = sizes.scored
    commands = (inputs.stage("tests.bench.psds", *map(str, (number, *shape))) for number in (clips // 4, clips))
    few, many = (json.loads(inputs.run(command).splitlines()[-1]) for command in commands)
    size = f"{sizes.scored[1]} classes, {sizes.scored[2]} frames"
    yield Row(
        what=f"PSDS: memory of {many['clips']:,} clips, {size}",
        ours=f"{many['psds_mb']:.0f} MB beside {many['scores_mb']:.0f} MB of scores",
        peer=f"{few['psds_mb']:.0f} MB for {few['clips']:,} clips",
        found=Spread.of([many["psds_mb"] / few["psds_mb"]]),
        at_most=MAX_GROWTH,
    )
    yield Row(
        what="PSDS: CPU time of a clip, both scenarios with intervals",
        ours=f"{many['cpu_s']:.0f} s for {many['clips']:,} clips, {size}",
        found=Spread.of([1e3 * many["cpu_s"] / many["clips"]]),
        unit="ms",
    )


def _megabytes(name: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1e3


if __name__ == "__main__":
    print(json.dumps(asdict(score(*map(int, sys.argv[1:])))))
