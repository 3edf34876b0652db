"""`cluster/slurm.sh` where there is no Slurm: stand-ins for its programs and for Ray; `make cluster-test` has Ray itself."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm import PYTHON, RAY, SAVING, SCONTROL, SRUN, STAGE

SCRIPT = Path("cluster/slurm.sh").resolve()
PATIENCE_S = 240.0


class Allocation:
    """An allocation of two nodes, both of them this machine."""

    def __init__(self, folder: Path) -> None:
        """Choose a job whose ports are free."""
        self.folder, self.where = folder, Path.cwd()
        self.number = next(number for number in range(os.getpid(), 10**7) if free(ports(number)))
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))
        } | {
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NUM_NODES": "2",
            "REQUEUED": f"{folder}/requeued",
            "HEAD": f"{folder}/head",
            "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.write("bin/srun", SRUN)
        self.write("bin/scontrol", SCONTROL)

    def write(self, name: str, text: str, program: str = sys.executable) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{program}\n{text}")
        path.chmod(0o755)
        return path

    def without_ray(self) -> "Allocation":
        """Stand in for Ray too: the job runs in a repository whose environment has another."""
        self.where = self.folder
        self.write(".venv/bin/ray", RAY)
        self.write(".venv/bin/python", PYTHON)
        self.write("pipeline/__main__.py", "")
        return self

    def run(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=self.where,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def processes(self) -> list[tuple[str, bytes]]:
        """Return the commands and environments of this job's processes."""
        mine = f"SLURM_JOB_ID={self.number}\0".encode()
        return [each for each in processes() if mine in each[1]]

    def left(self) -> list[str]:
        """Return what does not end."""
        until = time.monotonic() + 20
        while self.processes() and time.monotonic() < until:
            time.sleep(0.2)
        return [command for command, _ in self.processes()]


def ports(number: int) -> range:
    first = 20000 + number % 2500 * 4
    return range(first, first + 3)


def free(wanted: range) -> bool:
    try:
        for port in wanted:
            socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


def processes() -> Iterator[tuple[str, bytes]]:
    """Yield the command and the environment of each process that this user can see."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (path / "cmdline").read_text(errors="replace"), (path / "environ").read_bytes()
        except OSError:
            continue
        if command:
            yield command, environment


@pytest.fixture
def allocation(tmp_path: Path) -> Iterator[Allocation]:
    made = Allocation(tmp_path)
    yield made
    shutil.rmtree(f"/tmp/ray-{made.number}", ignore_errors=True)


@pytest.fixture
def stood_in(allocation: Allocation) -> Allocation:
    """An allocation where Ray is stood in for, too."""
    return allocation.without_ray()


def output_until(job: "subprocess.Popen[str]", word: str) -> str:
    assert job.stdout is not None
    output = ""
    for line in job.stdout:
        output += line
        if word in line:
            return output
    raise AssertionError(output)


@pytest.mark.cluster
def test_two_nodes_run_a_script_that_saves_before_the_time_limit(allocation: Allocation) -> None:
    """Ray itself, guarded by a token. USR1 is what Slurm sends; the stage gets SIGTERM while its Ray is still there."""
    script = allocation.write("script.sh", f'umask\npython {allocation.write("stage.py", STAGE)} "$@"', "/bin/bash")
    job = allocation.run(str(script), "a b", "c")
    try:
        output = output_until(job, "ready")
        assert "words ['a b', 'c']" in output
        assert "offers {'CPU': 1.0, 'GPU': 1.0} {'CPU': 1.0, 'GPU': None}" in output
        umask = subprocess.run(["bash", "-c", "umask"], capture_output=True, text=True).stdout
        assert output.startswith(umask)  # what the job writes, others may read as ever
        assert Path(f"/tmp/ray-{allocation.number}").stat().st_mode & 0o777 == 0o700
        (token,) = {
            found[1].decode()
            for _, environment in allocation.processes()
            if (found := re.search(rb"\0RAY_AUTH_TOKEN=(\w{64})\0", environment))
        }
        assert not [command for command, _ in processes() if token in command]
        assert refusal(f"http://127.0.0.1:{ports(allocation.number)[2]}/api/jobs/") == 401
        job.send_signal(signal.SIGUSR1)
        output = job.communicate(timeout=PATIENCE_S)[0]
    finally:
        job.terminate()
    assert "saved, with a task" in output and job.returncode == 143, output
    assert allocation.read("requeued") == f"requeue {allocation.number}\n"
    assert not allocation.left()


def refusal(url: str) -> int:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {url}")


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_the_commands(stood_in: Allocation, code: int) -> None:
    job = stood_in.run(str(stood_in.write("script.sh", f"exit {code}")), "a", "b")
    output = job.communicate(timeout=PATIENCE_S)[0]
    assert job.returncode == code and "no other will join" in output  # the stand-in's address is 127.0.0.1
    assert not stood_in.left() and not stood_in.read("requeued")


@pytest.mark.parametrize(("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_stage_may_take_its_time_to_save(stood_in: Allocation, sent: signal.Signals, requeued: bool) -> None:
    """Also when it runs in a script, which SIGTERM ends at once; only the time limit queues the job again."""
    stage = stood_in.write("stage.py", SAVING)
    job = stood_in.run(str(stood_in.write("script.sh", f"python {stage}")), "a", "b")
    output_until(job, "ready")
    job.send_signal(sent)
    output = job.communicate(timeout=PATIENCE_S)[0]
    assert "saved" in output and job.returncode == 143
    assert bool(stood_in.read("requeued")) == requeued
    assert not stood_in.left()


def test_a_command_that_is_done_in_time_is_not_queued_again(stood_in: Allocation) -> None:
    job = stood_in.run(
        str(stood_in.write("script.sh", "trap 'exit 0' TERM; echo ready; while sleep 0.1; do :; done")), "a", "b"
    )
    output_until(job, "ready")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE_S) == 0 and not stood_in.read("requeued")


def test_a_ray_that_does_not_start_ends_the_job(stood_in: Allocation) -> None:
    stood_in.environment["RAY_IS"] = "broken"
    job = stood_in.run(str(stood_in.write("script.sh", "echo never")), "a", "b")
    output = job.communicate(timeout=PATIENCE_S)[0]
    assert job.returncode != 0 and "this Ray does not start" in output and "never" not in output
    assert not stood_in.left()


def test_a_lost_head_ends_the_job(stood_in: Allocation) -> None:
    job = stood_in.run(str(stood_in.write("script.sh", "echo ready; sleep 1000")), "a", "b")
    output_until(job, "ready")
    os.kill(int(stood_in.read("head")), signal.SIGKILL)
    output = job.communicate(timeout=PATIENCE_S)[0]
    assert job.returncode == 143 and "Ray ended before the command" in output
    assert not stood_in.left() and not stood_in.read("requeued")


def test_what_cannot_run_is_refused(stood_in: Allocation) -> None:
    for where, words in (
        (stood_in.folder, ["pipeline", "verify"]),
        (stood_in.folder / "bin", ["pipeline", "caption", "tiny"]),
    ):
        stood_in.where = where
        job = stood_in.run(*words)
        assert "usage" in job.communicate(timeout=PATIENCE_S)[0] and job.returncode == 2


def test_slurm_is_asked_for_whole_nodes_and_a_signal_in_time() -> None:
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", SCRIPT.read_text(), re.MULTILINE))
    assert {
        "exclusive": "",
        "requeue": "",
        "mem": "0",
        "ntasks-per-node": "1",
        "open-mode": "append",
    }.items() <= asked.items()
    batch, name, seconds = re.split("[:@]", asked["signal"])
    assert (batch, name) == ("B", "USR1") and int(seconds) >= 300  # training waits a minute for its state to be written
    assert SCRIPT.read_text().count("# EDIT:") == 1
