"""How many GPU actors one driver can keep busy: `make scaling`. Prints a table for BENCHMARKS.md, draws cluster/scaling.svg.

The graph is the one of `pipeline caption`, by the same functions, on a Ray that counts 256 GPUs; its actors sleep
for as long as a GPU would need for a shard. What is left is what Ray costs: scheduling, and moving shards through the object
store. All processes share the cores of this machine, where a cluster has a head for the driver alone: real knees lie higher.
More actors than the memory holds the processes of are left out, and named.
"""

import os
import re
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline.graph import engine
from pipeline.graph.engine import ActorConfig

SHARD_S = 2.0  # that an actor takes for a shard: 512 clips at 256 a second
ACTORS = {  # by MB of a shard: nothing but the scheduling; what the memory of this machine lets pass
    0.0: (1, 4, 8, 16, 32, 64, 128, 256),
    16.0: (1, 4, 8, 16, 32),
}
PROCESS_GB = 0.1  # of an actor, though it only sleeps
SHARDS_EACH, FEWEST = 6, 24  # shards for each actor, and no fewer than this in all
KEEPS_UP = 0.9  # share of the ideal rate from which on the actors count as busy
PICTURE = Path(__file__).parents[2] / "cluster" / "scaling.svg"


class Sleeper:
    """Takes as long as a model on a GPU, and passes the shard on."""

    def __init__(self) -> None:
        self.turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self.turn:
            time.sleep(SHARD_S)
        return batch.append_column("actor", pa.array([os.getpid()]))


def read(batch: pa.Table, size: int) -> pa.Table:
    """Return a shard of random bytes, which nothing can compress."""
    return batch.append_column("clips", pa.array([os.urandom(size)], pa.large_binary()))


def write(batch: pa.Table) -> pa.Table:
    """Drop the bytes, and keep who had them."""
    return batch.select(["actor"])


def rate(actors: int, payload_mb: float) -> float:
    """Return the shards a second that so many actors let through, once all have started (or half the shards are done)."""
    shards = max(FEWEST, SHARDS_EACH * actors)
    pool = ActorConfig(min=actors, max=actors, gpus=1.0, cpus=0.001)
    steps = (
        engine.Tasks(partial(read, size=round(payload_mb * 1e6))),
        engine.Actors(Sleeper, (), pool),
        engine.Tasks(write),
    )
    done: list[float] = []
    started: set[int] = set()
    first, last = shards // 2, shards - 1 - shards // 10
    for row in engine.rows(range(shards), *steps, in_process=False):
        done.append(time.monotonic())
        started.add(row["actor"])
        if len(started) == actors:
            first = min(first, len(done) - 1)
    return (last - first) / (done[last] - done[first])


def free_gb() -> float:
    """Return the memory that is left for processes, on Linux."""
    return int(re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())[0]) * 1024 / 1e9


def knee(rates: dict[int, float]) -> int:
    """Return the most actors that were kept busy."""
    return max((actors for actors, found in rates.items() if found >= KEEPS_UP * actors / SHARD_S), default=0)


def draw(found: dict[float, dict[int, float]], path: Path) -> None:
    """Draw rates over actors, with the ideal and the knees."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    most = max(actors for rates in found.values() for actors in rates)
    axes.plot([1, most], [1 / SHARD_S, most / SHARD_S], "--", color="#888888", label="every actor busy")
    for (payload_mb, rates), color in zip(found.items(), ("#1f6fb4", "#c4571a"), strict=False):
        name = f"{payload_mb:g} MB a shard" if payload_mb else "scheduling alone"
        axes.plot(list(rates), list(rates.values()), "o-", color=color, label=name)
        if at := knee(rates):
            axes.axvline(at, color=color, linewidth=0.8, linestyle=":")
            axes.annotate(f"{at} actors", (at, 1 / SHARD_S), color=color, rotation=90, ha="right", va="bottom")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(list(found[0.0]), [str(actors) for actors in found[0.0]])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"GPU actors, {SHARD_S:g} s for a shard")
    axes.set_ylabel("shards a second")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print a table and draw it."""
    import ray

    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    gpus = max(map(max, ACTORS.values()))
    ray.init(num_cpus=4, num_gpus=gpus, _memory=16 * 2**30, logging_level="ERROR", log_to_driver=False)
    found: dict[float, dict[int, float]] = {payload_mb: {} for payload_mb in ACTORS}
    print("| actors | MB a shard | shards a second | of the ideal |\n|---|---|---|---|")
    for payload_mb, rates in found.items():
        for actors in ACTORS[payload_mb]:
            if actors * PROCESS_GB > (free := free_gb()):
                print(
                    f"{actors} actors take {actors * PROCESS_GB:.0f} GB, {free:.0f} are free: left out", file=sys.stderr
                )
                continue
            rates[actors] = rate(actors, payload_mb)
            share = rates[actors] * SHARD_S / actors
            print(f"| {actors} | {payload_mb:g} | {rates[actors]:.2f} | {share:.0%} |", flush=True)
        print(f"{payload_mb:g} MB a shard: up to {knee(rates)} actors busy", file=sys.stderr)
    draw(found, PICTURE)


if __name__ == "__main__":
    main()
