"""SIGKILL of the driver, of worker processes and of a Ray node at random moments changes nothing in the dataset."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.graph.caption_config import CaptionConfig

pytestmark = pytest.mark.ray
ROUNDS = 3  # one of each kind; `make chaos` has fifty


def test_kills_do_not_show(caption_config: CaptionConfig, tmp_path: Path) -> None:
    """In a process of its own: the cluster is not this session's Ray."""
    flags = [
        "tiny",
        "--source",
        caption_config.source,
        "--captioner",
        caption_config.captioner,
        "--clips-per-shard",
        "2",
    ]
    command = [sys.executable, "-m", "tests.bench.chaos", "--rounds", str(ROUNDS), "--seed", "1", "--", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert f"{ROUNDS} kills" in done.stdout and "all equal to the uninterrupted one" in done.stdout
    print(done.stdout)
