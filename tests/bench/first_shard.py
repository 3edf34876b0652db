"""How long a caption job takes until its first shard is committed: the whole command with a small captioner."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.dataset import shards
from tests.bench import inputs
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes
from tests.bench.warm_ray import warm_ray

SHARDS, CLIPS_PER_SHARD = 4, 8
POLL_S = 0.02
WARM_S, COLD_S = 8.0, 20.0


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the seconds on a Ray that runs, on one that the command starts, and without Ray."""
    captioner = inputs.write_captioner(folder)
    source = inputs.write_clips(folder, "flac", SHARDS * CLIPS_PER_SHARD, sizes)

    def wait(environment: dict[str, str], actors: int) -> Spread:
        return Spread.of(
            [_seconds(source, captioner, folder / "first", environment, actors) for _ in range(sizes.repeats)]
        )

    if sizes.ray:
        with warm_ray() as environment:
            yield _row("first shard, Ray running", wait(environment, 1), WARM_S)
        yield _row("first shard, Ray started by the command", wait({}, 1), COLD_S)
    yield _row("first shard, in process", wait({}, 0), None)


def _row(what: str, found: Spread, target: float | None) -> Row:
    return Row(what=what, ours=f"{found.median:.1f} s", found=found, unit="s", at_most=target)


def _seconds(source: Path, captioner: Path, out: Path, environment: dict[str, str], actors: int) -> float:
    """Return the seconds from the start of the command to the first commit mark; the job ends before this returns."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["--source", str(source), "--captioner", str(captioner), "--out", str(out), "--actors.max", str(actors)]
    command = inputs.stage("pipeline", "caption", "tiny", *words, "--clips-per-shard", str(CLIPS_PER_SHARD))
    started = time.monotonic()
    with open(out.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        while not shards.committed(str(out)):
            if process.poll():
                raise RuntimeError(out.with_suffix(".log").read_text()[-4000:])
            time.sleep(POLL_S)
        found = time.monotonic() - started
        assert process.wait() == 0, out.with_suffix(".log").read_text()[-4000:]
    return found
