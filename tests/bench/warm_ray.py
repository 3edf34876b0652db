"""A Ray that runs already, as on a cluster: `ray start --head` of this machine's cores."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray

from tests.bench.ratio import CORES
from tests.support.nodes import free_port

STORE_BYTES = 2 * 2**30
ATTEMPTS = 4  # to connect; each waits for some 20 s

_running: dict[str, str] | None = None  # the environment of the outermost block


@contextmanager
def warm_ray() -> Iterator[dict[str, str]]:
    """Yield the environment in which commands find the cluster; it ends with the block. A block within it shares it."""
    global _running
    if _running is not None:
        yield _running
        return
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    address = f"{ray.util.get_node_ip_address()}:{(port := free_port())}"  # a driver looks for a node of this address
    environment = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words = ["--head", "--block", f"--port={port}", f"--num-cpus={CORES}", "--include-dashboard=false"]
    words += [f"--temp-dir={folder}", f"--object-store-memory={STORE_BYTES}"]
    words += ["--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    words += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    head = subprocess.Popen(
        ["ray", "start", *words], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, "PYTHONPATH": str(Path.cwd()), "RAY_ADDRESS": ""},
    )  # fmt: skip
    try:
        _wait_until_up(environment)
        _running = environment
        yield environment
    finally:
        _running = None
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(environment: dict[str, str]) -> None:
    """Connect once, and let one task run, so that the first worker process is there."""
    code = "import ray; ray.init(log_to_driver=False); ray.get(ray.remote(lambda: 1).remote())"
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
        )
        if not done.returncode:
            return
    raise RuntimeError(f"no Ray came up: {done.stderr[-2000:]}")
