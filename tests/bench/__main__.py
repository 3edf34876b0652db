"""`make bench`: each figure beside its limit or its peer, measured in turn in one run, as a table.

Every row is printed when it has been measured. --append adds the table to a file, as a dated section with the machine,
the versions and the commit. Medians are over five repetitions; the spread is the smallest and the largest of them.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import (
    captioning,
    first_shard,
    growth,
    hardware,
    peers,
    psds,
    ray_checkpoint,
    reading,
    search,
    trainer,
    two_million,
)
from tests.bench.ratio import HEAD, Row
from tests.bench.sizes import TINY, Sizes

Measurement = Callable[[Path, Sizes], Iterator[Row]]
MEASUREMENTS: dict[str, Measurement] = {
    "caption": captioning.in_process,
    "caption-ray": captioning.on_ray,
    "actor": captioning.overhead,
    "first-shard": first_shard.measure,
    "reading": reading.measure,
    "trainer": trainer.measure,
    "user-loop": peers.user_loop,
    "clap-step": peers.clap_step,
    "ray-checkpoint": ray_checkpoint.measure,
    "growth": growth.measure,
    "search": search.measure,
    "psds": psds.measure,
}


def measure(names: Sequence[str], sizes: Sizes) -> Iterator[Row]:
    """Run measurements one after the other, in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    try:
        for name in names:
            yield from MEASUREMENTS[name](folder, sizes)
    finally:
        shutil.rmtree(folder)


def main(words: Sequence[str]) -> int:
    """Measure, print and append; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="NAME",
                        help=f"some of {', '.join(MEASUREMENTS)}")  # fmt: skip
    parser.add_argument("--append", metavar="FILE", help="append the table to this file, such as BENCHMARKS.md")
    parser.add_argument("--tiny", action="store_true", help="sizes that try the code; the figures mean nothing")
    parser.add_argument("--full", action="store_true", help="also plan and resume two million clips; half an hour more")
    options = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a Ray and folders that were made here go with it
    rows = []
    print(HEAD, flush=True)
    for row in measure(options.only, TINY if options.tiny else Sizes()):
        rows.append(row)
        print(row.markdown(), row.detail(), sep="\n", flush=True)
    lines = [HEAD, *(row.markdown() for row in rows), "", *(row.detail() for row in rows)]
    if options.full:
        lines += ["", *two_million.measure_all()]
    if options.append:
        with Path(options.append).open("a") as file:
            file.write(
                f"\n{hardware.describe(' '.join(['python -m tests.bench', *words]))}\n" + "\n".join(lines) + "\n"
            )
    return int(any(row.verdict == "missed" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
