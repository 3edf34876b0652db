"""Stages as Ray jobs on a real local cluster, and the shell scripts around them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import shards


def test_ray_job_submit_runs_a_stage_on_a_local_cluster(corpus: str, captioner: str, tmp_path: Path) -> None:
    """`ray start --head` in processes of its own, then `cluster/submit.sh` as a user would."""
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # of its own, and short: socket paths may have 107 characters
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports[0]}",
    }
    head = subprocess.Popen(
        [
            *("ray", "start", "--head", "--block", "--num-cpus", "3", "--port", str(ports[1])),
            *("--dashboard-port", str(ports[0]), "--dashboard-agent-listen-port", str(ports[2])),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        command = ["cluster/submit.sh", "pipeline", "caption", "tiny", "--out", f"{tmp_path}/out"]
        command += ["--source", f"{corpus}/tagged_segments.csv", "--captioner", captioner]
        done = _until_it_answers(command, environment)
        assert done.returncode == 0, done.stdout
        assert "24 clips = 24 written" in done.stdout
        assert len(shards.Index(f"{tmp_path}/out")) == 24
        wrong = subprocess.run([*command[:4], "--out", "x"], env=environment, capture_output=True, text=True)
        assert wrong.returncode != 0
        assert "--source is missing" in wrong.stdout + wrong.stderr
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _until_it_answers(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Submit, again while the job server is not up yet."""
    for _ in range(30):
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if "Failed to connect" not in done.stdout and "ConnectionError" not in done.stdout:
            return done
        time.sleep(2)
    return done


def test_shell_scripts_pass_shellcheck() -> None:
    scripts = sorted(map(str, Path("cluster").glob("*.sh")))
    assert scripts
    subprocess.run(["shellcheck", *scripts, ".ci/run"], check=True)
