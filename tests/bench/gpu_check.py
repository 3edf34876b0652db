"""`make gpu-check`: the tests marked gpu, then the speed of the models on this machine's GPU, stage by stage.

Needs torch, torchaudio, transformers, numpy and pytest; the trainer's loop also what the trainer imports, without Ray.
Each row of the table is printed, and appended to a file, as soon as it is measured; the hardest questions come first. A
stage has its share of six minutes and says what it leaves out. Times are medians of CUDA events after warm-up, over three
sets of random inputs in turn. MFU is the share of the measured rate of a large matrix product in the same precision; torch
counts the operations, without those of GRU and FFT.
"""

import argparse
import gc
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tests.bench import gpu_jobs, gpu_models
from tests.bench.gpu_table import FULL, QUICK, Bench, Row

ROOT = Path(__file__).parents[2]
PYTEST = ("--noconftest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "tests/test_train_devices.py")


class Stage(NamedTuple):
    """A part of the check."""

    name: str
    seconds: float  # its share of the budget; what a stage leaves of it goes to the next ones
    rows: Callable[[Bench], Iterator[Row]]
    with_ray: bool = False


def gpu_tests(bench: Bench) -> Iterator[Row]:
    """The tests marked gpu, in a process of their own; on a CPU two of the same file."""
    began, chosen = time.monotonic(), ("-m", "gpu") if bench.on_gpu else ("-k", "resampling and cpu")
    left_s = max(30.0, bench.deadline - began)
    done = subprocess.run([sys.executable, "-m", "pytest", *PYTEST, *chosen], cwd=ROOT, timeout=left_s)
    assert done.returncode == 0, "tests failed"
    yield Row("tests marked gpu", "passed", 0, 1000 * (time.monotonic() - began))


STAGES = (
    Stage("tests", 95, gpu_tests),
    Stage("graph", 20, gpu_models.decode_graph),
    Stage("encoders", 95, gpu_models.encoders),
    Stage("decode", 35, gpu_models.decode),
    Stage("pretraining", 70, gpu_models.pretraining),
    Stage("loop", 30, gpu_jobs.trainer_loop),
    Stage("front-ends", 5, gpu_models.front_ends),
    Stage("captioner-training", 10, gpu_models.captioner_training),
    Stage("ray", 120, gpu_jobs.ray_commands, with_ray=True),
)


def main(words: list[str] | None = None) -> int:
    """Check and measure; return 0, 1 when a stage failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda; cpu exercises the same code with tiny sizes")
    parser.add_argument("--append", metavar="FILE", help="append the table to this file, such as BENCHMARKS.md")
    parser.add_argument("--only", metavar="NAME", choices=[stage.name for stage in STAGES], help="run one stage")
    parser.add_argument("--with-ray", action="store_true", help="also caption and train through Ray; two minutes more")
    options = parser.parse_args(words)
    if options.device != "cpu" and not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA GPU on this machine; nothing was checked", file=sys.stderr)
        return 2
    stages = [stage for stage in STAGES if options.only in (stage.name, None)]
    stages = [stage for stage in stages if not stage.with_ray or options.with_ray or options.only]
    torch.manual_seed(0)
    size = QUICK if options.device == "cpu" else FULL
    bench = Bench(torch.device(options.device), size, Path(options.append) if options.append else None)
    failed = run(stages, bench)
    print("\n".join(("", bench.head, *bench.lines, "")))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(stages: Sequence[Stage], bench: Bench) -> list[str]:
    """Run stages in turn; return the names of those that failed."""
    failed = []
    for stage in stages:
        bench.deadline += stage.seconds
        print(f"[{time.monotonic() - bench.started:.0f} s] {stage.name}", flush=True)
        try:
            for row in stage.rows(bench):
                bench.report(row)
        except Exception:  # the rest is still worth its time
            traceback.print_exc()
            failed.append(stage.name)
        gc.collect()
        if bench.on_gpu:
            torch.cuda.empty_cache()
    return failed


if __name__ == "__main__":
    sys.exit(main())
