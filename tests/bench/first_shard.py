"""How long a caption job takes until its first shard is committed: the whole command with a small captioner.

Small shards show the start-up alone; those of the config `demo` show what its user waits for.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.configs import CAPTION
from pipeline.dataset import shards
from tests.bench import inputs
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes
from tests.bench.warm_ray import warm_ray

FEW_CLIPS, DEMO_CLIPS = 8, CAPTION["demo"][1].clips_per_shard  # of a shard
FEW_SHARDS, DEMO_SHARDS = 4, 2  # of a job
POLL_S = 0.02
WARM_S, COLD_S = 8.0, 20.0


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the seconds on a Ray that runs, on one that the command starts, and without Ray."""
    captioner = inputs.write_captioner(folder)

    def wait(
        where: str, environment: dict[str, str], actors: int, target: float | None, size: int, num_shards: int
    ) -> Row:
        source = inputs.write_clips(folder, "flac", size * num_shards, sizes)
        command = _command(source, captioner, folder / "first", actors, size)
        found = Spread.of([_seconds(command, folder / "first", environment) for _ in range(sizes.repeats)])
        what = f"first shard, of {size} clips, {where}"
        return Row(what=what, ours=f"{found.median:.1f} s", found=found, unit="s", at_most=target)

    if sizes.ray:
        with warm_ray() as environment:
            yield wait("Ray running", environment, 1, WARM_S, FEW_CLIPS, FEW_SHARDS)
            yield wait("Ray running", environment, 1, WARM_S, DEMO_CLIPS, DEMO_SHARDS)
        yield wait("Ray started by the command", {}, 1, COLD_S, FEW_CLIPS, FEW_SHARDS)
    yield wait("in process", {}, 0, None, FEW_CLIPS, FEW_SHARDS)


def wait_for_commit(process: subprocess.Popen[bytes], out: Path, log: Path) -> None:
    """Return when the first shard is committed.

    Raises:
        RuntimeError: with the log, when the command ends without one, whatever its status.
    """
    while not shards.committed(str(out)):
        if process.poll() is not None and not shards.committed(str(out)):
            raise RuntimeError(f"no shard, and the command ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        time.sleep(POLL_S)


def _command(source: Path, captioner: Path, out: Path, actors: int, clips_per_shard: int) -> list[str]:
    words = ["--source", str(source), "--captioner", str(captioner), "--out", str(out), "--actors.max", str(actors)]
    return inputs.stage("pipeline", "caption", "tiny", *words, "--clips-per-shard", str(clips_per_shard))


def _seconds(command: list[str], out: Path, environment: dict[str, str]) -> float:
    """Return the seconds from the start of the command to the first commit mark; the job ends before this returns."""
    shutil.rmtree(out, ignore_errors=True)
    log = out.with_suffix(".log")
    started = time.monotonic()
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
        wait_for_commit(process, out, log)
        found = time.monotonic() - started
        assert process.wait() == 0, log.read_text()[-4000:]
    return found
