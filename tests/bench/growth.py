"""Seconds and memory against the number of clips: planning, finding what is left, indexing tars, the retrieval metric.

Every point is a process of its own: `python -m tests.bench.growth NAME FOLDER` prints the seconds of the work and
the memory that it took beyond the imports. `tests/bench/two_million.py` measures the same work on two million clips.
"""

import io
import json
import math
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import audio
from pipeline.dataset import commit
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.publish import publish_plan
from tests.bench import inputs, two_million
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes

CLIPS_PER_SHARD, CLIPS_PER_TAR = 512, 4_096
MAX_EXPONENT = 1.1  # n log n over these sizes, and some noise
PAIRWISE_EXPONENT = 2.1  # of the exact retrieval metric, which compares each caption with each clip
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's, which colour-blind readers can distinguish
MARKERS = ("o", "s", "^", "D")


class Point(NamedTuple):
    """What so many clips took."""

    clips: int
    seconds: Spread
    megabytes: Spread


def plan(folder: Path) -> Callable[[], object]:
    """Return the work of planning a table of segments whose audio is there."""
    out, source = str(folder / "out"), str(folder / "unbalanced_train_segments.csv")
    return lambda: publish_plan(out, draft_plan(out, source, (), CLIPS_PER_SHARD, DecontaminationConfig()))


def resume(folder: Path) -> Callable[[], object]:
    """Return the work of finding what is left of a job that is 99 % done."""
    out, source = str(folder / "out"), str(folder / "unbalanced_train_segments.csv")

    def find() -> None:
        found = draft_plan(out, source, (), CLIPS_PER_SHARD, DecontaminationConfig()).plan
        commit.recover(out)
        assert found.missing(out)

    return find


def index(folder: Path) -> Callable[[], object]:
    """Return the work of `pipeline index` over tars that others wrote."""
    from pipeline.stages import index

    number = len(list(folder.glob("index_*")))
    config = index.IndexConfig(source=str(folder / "tars"), out=str(folder / f"index_{number}"))
    return lambda: index.run(config)


def retrieval(folder: Path) -> Callable[[], object]:
    """Return the work of ranking every clip for every caption."""
    import torch

    from train.metrics import ranking

    embeddings = [torch.nn.functional.normalize(torch.from_numpy(each)) for each in np.load(folder / "embeddings.npy")]
    clips = torch.arange(len(embeddings[0]))
    return lambda: ranking.retrieve(*embeddings, clips, clips)


WORK = {"plan": plan, "resume": resume, "index": index, "retrieval metric": retrieval}


def main(words: Sequence[str]) -> None:
    """Measure one point."""
    name, folder = words
    work = WORK[name](Path(folder))
    before, started = _kilobytes("VmRSS"), time.perf_counter()
    _reset_peak()
    work()
    took = time.perf_counter() - started
    print(json.dumps([took, max(0, _kilobytes("VmHWM") - before) / 1e3]))


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the fitted exponents of seconds and of memory, and draw the points."""
    found: dict[str, list[Point]] = {}
    for name in WORK:
        counts = sizes.gallery if name == "retrieval metric" else sizes.rows
        found[name] = [_point(name, folder / f"{name}_{count}".replace(" ", "_"), count, sizes) for count in counts]
    for name, points in found.items():
        largest = points[-1]
        for what, unit, bound, of in (
            ("seconds", "s", PAIRWISE_EXPONENT if name == "retrieval metric" else MAX_EXPONENT, 1),
            ("memory", "MB", MAX_EXPONENT, 2),
        ):
            values: list[Spread] = [point[of] for point in points]  # type: ignore[misc]
            yield Row(
                what=f"growth of {what}, {name}, {points[0].clips:,} to {largest.clips:,} clips",
                ours=", ".join(f"{value.median:.3g}" for value in values) + f" {unit}",
                found=_exponents([point.clips for point in points], values),
                unit="exponent",
                at_most=bound,
            )
    draw(found, sizes.picture or folder / "growth.svg")


def _point(name: str, folder: Path, clips: int, sizes: Sizes) -> Point:
    folder.mkdir()
    _prepare(name, folder, clips, sizes)
    pairs = [_run(name, folder) for _ in range(sizes.repeats)]
    return Point(clips, *(Spread.of(values) for values in zip(*pairs, strict=True)))


def _run(name: str, folder: Path) -> tuple[float, float]:
    if name == "plan":
        shutil.rmtree(folder / "out", ignore_errors=True)
    printed = inputs.run(inputs.stage("tests.bench.growth", name, str(folder)))
    took, megabytes = json.loads(printed.splitlines()[-1])
    return took, megabytes


def _prepare(name: str, folder: Path, clips: int, sizes: Sizes) -> None:
    """Write what the work of one size needs."""
    if name in ("plan", "resume"):
        two_million.prepare(folder, clips)
    if name == "resume":
        plan(folder)()
        two_million.commit_all_but(str(folder / "out"), left=max(1, round(clips / CLIPS_PER_SHARD / 100)))
    if name == "index":
        _write_tars(folder / "tars", clips)
    if name == "retrieval metric":
        rng = np.random.default_rng(0)
        np.save(folder / "embeddings.npy", rng.standard_normal((2, clips, sizes.embedding), dtype=np.float32))


def _write_tars(folder: Path, clips: int) -> None:
    """Write WebDataset tars of short clips with a caption, as other programs do."""
    folder.mkdir()
    flac = audio.encode_flac(np.arange(1_600, dtype=np.int16))
    meta = json.dumps({"text": ["a sound"], "tag": ["Sound"]}).encode()
    for first in range(0, clips, CLIPS_PER_TAR):
        with tarfile.open(folder / f"{first // CLIPS_PER_TAR:05d}.tar", "w") as tar:
            for number in range(first, min(clips, first + CLIPS_PER_TAR)):
                for suffix, data in (("flac", flac), ("json", meta)):
                    member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _exponents(clips: list[int], values: list[Spread]) -> Spread:
    """Return the slopes over the two largest sizes: a constant share, such as start-up, hides growth in the small ones."""
    (smaller, larger), steps = values[-2:], math.log(clips[-1] / clips[-2])

    def slope(below: float, above: float) -> float:
        return math.log(max(above, 1e-3) / max(below, 1e-3)) / steps

    return Spread(
        slope(smaller.median, larger.median), slope(smaller.high, larger.low), slope(smaller.low, larger.high)
    )


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Draw seconds and memory against clips, both logarithmic, with a line that grows as the number of clips does."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for panel, label, of in zip(panels, ("seconds", "memory, MB"), (1, 2), strict=True):
        for (name, points), color, marker in zip(found.items(), COLORS, MARKERS, strict=True):
            clips = [point.clips for point in points]
            values: Any = [max(point[of].median, 1e-3) for point in points]  # type: ignore[attr-defined]
            panel.plot(clips, values, marker=marker, color=color, label=name)
            panel.annotate(name, (clips[-1], values[-1]), textcoords="offset points", xytext=(6, 0), color=color)
        low, high = panel.get_xlim()
        floor = panel.get_ylim()[0]
        panel.plot([low, high], [floor, floor * high / low], "--", color="#888888", label="proportional to clips")
        panel.set(xscale="log", yscale="log", xlabel="clips", ylabel=label)
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _kilobytes(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def _reset_peak() -> None:
    """Let the kernel count the peak of memory from now on, where it allows that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(sys.argv[1:])
