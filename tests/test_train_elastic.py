"""A Ray node is lost in the middle of an epoch: training goes on with the worker that is left, and loses no step."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import storage

pytestmark = [pytest.mark.ray, pytest.mark.cluster]  # two nodes: `make cluster-test`
EPOCHS, STEPS = 6, 18


def test_a_lost_node_costs_only_its_worker(dataset: str, tmp_path: Path) -> None:
    """Two nodes with a CPU each, a worker on each; SIGKILL for everything of one node after seven steps."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    words = [sys.executable, "-m", "tests.support.interrupted", '[["lose_node", 7]]', str(tmp_path)]
    words += ["pretrain", "tiny", "--data", dataset, "--optim.epochs", str(EPOCHS), "--optim.save-every-s", "0"]
    words += ["--scale.num-workers", "2", "--scale.min-workers", "1"]
    words += ["--watch.no-tensorboard", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}

    def log() -> str:
        return (tmp_path / "log").read_text()

    with open(tmp_path / "log", "w") as file:
        driver = subprocess.Popen(words, env=environment, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "0.done").exists():  # from then on the workers wait
            assert driver.poll() is None and time.monotonic() < deadline, log()[-4000:]
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        assert driver.wait(timeout=400) == 0, log()[-4000:]
    finally:
        driver.kill()
        cluster.shutdown()
    history = storage.read_json(str(tmp_path / "out" / "history.json"))
    assert len(history["loss"]) == STEPS
    assert [each["epoch"] for each in history["epochs"]] == list(range(1, EPOCHS + 1))
    assert "samples/s per worker" in log() and "continues at step" in log()
