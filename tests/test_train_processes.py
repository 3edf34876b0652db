"""Loader processes: whatever is killed, no process and no memory is left, and the run ends with a clear error."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import JobError
from tests.test_train_loader import LENGTH, Numbered, order
from train.data.loader import Loader, LoaderConfig
from train.data.processes import LoaderProcess
from train.data.reading import CacheConfig, ClipRequest

TRAINER = """
import sys, time
from pathlib import Path
from tests.test_train_loader import LENGTH, Numbered, order
from train.data.loader import Loader, LoaderConfig
import multiprocessing

if __name__ == "__main__":
    clips = Numbered(Path(sys.argv[1])).listed
    steps = Loader(clips, order(clips), LENGTH, config=LoaderConfig(processes=2)).batches(0, 100)
    next(steps)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody waited for counts, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def named_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("*blat*")} | {p.name for p in Path("/dev/shm").glob("psm_*")}


def test_a_killed_loader_process_ends_the_run_with_its_signal(tmp_path: Path) -> None:
    clips = Numbered(tmp_path).listed
    loader = Loader(clips, order(clips), LENGTH, config=LoaderConfig(processes=2))
    steps = loader.batches(0, 1000)
    next(steps)
    victim = multiprocessing.active_children()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(JobError, match=r"reads clips ended: SIGKILL; .*--loader\.processes"):
        for _ in steps:
            pass
    assert not multiprocessing.active_children()


def test_a_killed_training_process_leaves_no_process_and_no_memory(tmp_path: Path) -> None:
    before = named_memory()
    (tmp_path / "trainer.py").write_text(TRAINER)
    command = [sys.executable, str(tmp_path / "trainer.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # the script imports tests
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as trainer:
        assert trainer.stdout is not None
        children = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(children) == 2 and not any(map(gone, children))
        trainer.kill()
    waited = time.monotonic()
    while not all(map(gone, children)) and time.monotonic() - waited < 60:
        time.sleep(0.1)
    assert all(map(gone, children))
    assert named_memory() <= before


def test_slots_are_used_again_and_rows_are_those_of_their_request(tmp_path: Path) -> None:
    """Two requests wait at a time; each of them is for another number of clips."""
    clips = Numbered(tmp_path).listed
    process = LoaderProcess(slots=2, rows=3, num_samples=LENGTH, cache=CacheConfig())
    try:
        wanted = [[0, 1, 2], [3], [4, 5], [6, 7, 8], [9, 10]]
        rows = [np.full((len(numbers), LENGTH), -1, np.int16) for numbers in wanted]
        requests = [[ClipRequest(clips.location(number), 0.0) for number in numbers] for numbers in wanted]
        waits = [process.request(requests[0], rows[0])]
        for i in range(len(wanted)):
            if i + 1 < len(wanted):
                waits.append(process.request(requests[i + 1], rows[i + 1]))
            filled = waits[i]()
            assert filled.faults == [""] * len(wanted[i]) and filled.num_samples.tolist() == [LENGTH] * len(wanted[i])
    finally:
        process.close()
    for numbers, found in zip(wanted, rows, strict=True):
        assert found.tolist() == [list(range(100 * n, 100 * n + LENGTH)) for n in numbers]
    assert not multiprocessing.active_children()
