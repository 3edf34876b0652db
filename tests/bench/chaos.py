"""Kill a caption job again and again, anywhere, and prove that the result does not show it.

`python -m tests.bench.chaos --rounds 50 -- <config and flags of pipeline caption>`

A Ray cluster of two nodes on this machine; each round kills the driver, one worker process or the second node with
SIGKILL at a random moment. Whenever a dataset is finished it is compared with the uninterrupted one byte for byte,
and another is begun.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.dataset import shards

KINDS = ("driver", "worker", "node")
PATIENCE_S = 240.0  # without a new shard or an end


class Chaos:
    """A cluster, a job on it, and what kills both."""

    def __init__(self, command: list[str], folder: Path, seed: int) -> None:
        self.command, self.folder, self.draw = command, folder, random.Random(seed)
        self.clusters = 0
        self._start_cluster()
        self.driver: subprocess.Popen[bytes] | None = None
        self.kills: Counter[str] = Counter()
        self.finished = 0
        self.failures = 0  # drivers that gave up by themselves; the same command goes on

    def _start_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 400 * 2**20},
        )
        self.node = self._add_node()
        self.clusters += 1

    def _add_node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)

    @property
    def out(self) -> Path:
        """Return the dataset that is being written."""
        return self.folder / f"dataset{self.finished}"

    def round(self, kind: str, whole: dict[str, bytes]) -> None:
        """Let the job run for a while, then kill something; a finished dataset is checked and followed by another."""
        deadline = time.monotonic() + self.draw.uniform(0, 6)
        committed = len(shards.committed(str(self.out)))
        waits_for_work = kind != "driver" or self.draw.random() < 0.7
        patience = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline or (waits_for_work and len(shards.committed(str(self.out))) == committed):
            assert time.monotonic() < patience, f"no shard in {PATIENCE_S} s: {self.tail()}"
            if self._ended():
                self._check(whole)
                committed = 0
            time.sleep(0.05)
        self._kill(kind)
        self.kills[kind] += 1

    def finish(self, whole: dict[str, bytes]) -> None:
        """Let the last dataset be finished, and check it."""
        patience = time.monotonic() + PATIENCE_S
        while not self._ended():
            assert time.monotonic() < patience, f"no end in {PATIENCE_S} s: {self.tail()}"
            time.sleep(0.1)
        self._check(whole)

    def _ended(self) -> bool:
        """Keep a driver running; tell whether one has finished its dataset."""
        if self.driver is None:
            log = open(self.folder / "driver.log", "ab")  # noqa: SIM115
            environment = os.environ | {"RAY_ADDRESS": self.cluster.address}
            self.driver = subprocess.Popen(
                [*self.command, "--out", str(self.out)], env=environment, stdout=log, stderr=log, start_new_session=True
            )
            log.close()
        code = self.driver.poll()
        if code is None:
            return False
        self.driver = None
        if code != 0:
            self.failures += 1
            print(f"a driver gave up: {self.tail()[-1500:]}", flush=True)
            if not self.cluster.head_node.remaining_processes_alive():  # Ray takes a head that lags for dead
                self.cluster.shutdown()
                self._start_cluster()
        return code == 0

    def _kill(self, kind: str) -> None:
        if kind == "driver" and self.driver is not None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
            self.driver = None
        elif kind == "node":
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self._add_node()
        elif workers := self._workers():
            os.kill(self.draw.choice(workers), signal.SIGKILL)

    def _workers(self) -> list[int]:
        """Return the worker processes of this cluster that do something."""
        raylets = {
            info.process.pid for node in self.cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])
        }
        found = []
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) in raylets:
                    name = (path / "cmdline").read_bytes()
                    if name.startswith(b"ray::") and not name.startswith(b"ray::IDLE"):
                        found.append(int(path.name))
            except OSError:
                continue  # it has ended meanwhile
        return sorted(found)

    def _check(self, whole: dict[str, bytes]) -> None:
        mine = contents(self.out)
        different = sorted(name for name in whole.keys() | mine.keys() if whole.get(name) != mine.get(name))
        assert not different, f"{self.out} differs from the uninterrupted dataset in {different}"
        shutil.rmtree(self.out)
        self.finished += 1

    def tail(self) -> str:
        """Return the end of what the drivers said."""
        return (self.folder / "driver.log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End everything."""
        if self.driver is not None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()
        self.cluster.shutdown()


def contents(data: Path) -> dict[str, bytes]:
    """Return every file of a dataset that its content decides: tars, ledgers, commit marks, sizes, the plan."""
    names = [
        path for path in data.iterdir() if path.suffix in (".tar", ".parquet", ".json") and path.name != "run.json"
    ]
    return {path.name: path.read_bytes() for path in sorted(names)} | (
        {"attempts": b"left over"} if (data / "attempts").exists() else {}
    )


def run(command: list[str], folder: Path, rounds: int, seed: int) -> str:
    """Write the dataset once in one process, then on the cluster under `rounds` kills; return what was done."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    subprocess.run([*command, "--actors.max", "0", "--out", str(folder / "whole")], check=True)
    whole = contents(folder / "whole")
    chaos = Chaos(command, folder, seed)
    try:
        for number in range(rounds):
            chaos.round(KINDS[number % len(KINDS)], whole)
            print(f"round {number + 1}: killed a {KINDS[number % len(KINDS)]}", flush=True)
        chaos.finish(whole)
    finally:
        chaos.close()
    kills = ", ".join(f"{count} {kind}s" for kind, count in chaos.kills.items())
    return (
        f"{rounds} kills ({kills}), {chaos.finished} datasets finished under them, all equal to the uninterrupted one; "
        f"{chaos.failures} drivers gave up and were started again, {chaos.clusters - 1} clusters were lost; "
        f"{time.monotonic() - started:.0f} s"
    )


def main() -> None:
    """Parse the command line; everything after `--` is the caption command without --out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("flags", nargs="+", help="config and flags of `pipeline caption`, without --out")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "pipeline", "caption", *arguments.flags]
    with tempfile.TemporaryDirectory() as folder:
        print(run(command, Path(folder), arguments.rounds, arguments.seed))


if __name__ == "__main__":
    main()
