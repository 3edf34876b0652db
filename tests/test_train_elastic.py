"""A Ray node is lost in the middle of an epoch: training goes on with the worker that is left, and loses no step."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import storage

pytestmark = pytest.mark.ray
EPOCHS = 60


def test_a_lost_node_costs_only_its_worker(dataset: str, tmp_path: Path) -> None:
    """Two nodes with a CPU each, a worker on each; SIGKILL for everything of one node. In processes of their own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    words = [sys.executable, "-m", "train", "pretrain", "tiny", "--data", dataset, "--optim.epochs", str(EPOCHS)]
    words += ["--scale.num-workers", "2", "--scale.min-workers", "1", "--optim.save-every-s", "0"]
    words += ["--watch.no-tensorboard", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}
    log = open(tmp_path / "log", "w+")  # noqa: SIM115
    driver = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def steps() -> int:
        states = (tmp_path / "out" / "training_state").glob("*.json")
        return max((int(path.stem) for path in states), default=0)

    def told() -> str:
        return (tmp_path / "log").read_text()[-4000:]

    try:
        deadline = time.monotonic() + 240
        while steps() < 6:
            assert driver.poll() is None and time.monotonic() < deadline, told()
            time.sleep(0.05)
        assert steps() < 3 * EPOCHS - 20, "too late to lose anything"
        cluster.remove_node(node, allow_graceful=False)
        assert driver.wait(timeout=400) == 0, told()
    finally:
        driver.kill()
        cluster.shutdown()
        log.close()
    history = storage.read_json(str(tmp_path / "out" / "history.json"))
    assert len(history["loss"]) == 3 * EPOCHS and [each["epoch"] for each in history["epochs"]] == list(
        range(1, EPOCHS + 1)
    )
    assert "samples/s per worker" in told() and "continues at step" in (tmp_path / "log").read_text()
