"""The training loop with a model of one number: what the loop itself takes of the training thread."""

from collections.abc import Iterator
from pathlib import Path

from tests.bench import train_loop
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes

MAX_MS = 3.0  # of the training thread's processor time, a batch of 128 clips


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the thread's own time a batch, with reading in threads and in a process."""
    for processes in (0, 1):
        runs = [
            train_loop.measure(folder / f"loop_{processes}_{repeat}", processes, sizes.loop_steps)
            for repeat in range(sizes.repeats)
        ]
        own, wait = (Spread.of([getattr(run, name) for run in runs]) for name in ("own_wall_ms", "wait_ms"))
        found = Spread.of([run.thread_cpu_ms for run in runs])
        yield Row(
            what=f"training thread, a batch of {train_loop.BATCH}, {processes or 'no'} reading process",
            ours=f"{found.median:.2f} ms of processor, {own.median:.2f} ms of wall, {wait.median:.0f} ms of waiting",
            found=found,
            unit="ms",
            at_most=MAX_MS,
        )
