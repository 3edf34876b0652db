"""Ray clusters of several nodes on this machine, as `ray start` makes them, guarded by a token.

Nodes can be killed, and an autoscaler can bring some up.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

PATIENCE_S = 240.0
STORE = 150 * 2**20  # bytes of each node's object store
DECODES = (
    4 * 2**30
)  # bytes of memory that a node for decoding offers; one for models offers none, so that tasks stay away
CPU_NODE = ("--num-cpus", "1", "--memory", str(DECODES))
GPU_NODE = ("--num-cpus", "1", "--num-gpus", "1", "--memory", "1")


class Cluster:
    """A head without CPUs, nodes beside it, and the job server."""

    def __init__(self) -> None:
        """Choose ports, a token, and a folder of its own, short because socket paths may have 107 characters."""
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.port, self.dashboard = free_port(), free_port()
        self.token = secrets.token_hex(32)
        self.environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, autoscaling: dict[str, dict[str, Any]] | None = None) -> None:
        """Start a head; `autoscaling` are the node types that it may bring up, by name."""
        words = ["--head", "--num-cpus", "0", "--port", str(self.port), "--dashboard-port", str(self.dashboard)]
        words += ["--ray-client-server-port", str(free_port())]
        more = {}
        if autoscaling is not None:
            path = self.folder / "autoscaling.json"
            path.write_text(json.dumps(autoscaler(autoscaling, f"127.0.0.1:{self.port}")))
            words += ["--autoscaling-config", str(path)]
            more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "PYTHONPATH": str(Path.cwd())}
        self._start(words, more)
        self.until(self.nodes, "a head")

    def add(self, *nodes: Sequence[str]) -> list[subprocess.Popen[bytes]]:
        """Start more nodes, each by its words for `ray start`, and wait until the head knows of them."""
        before = len(self.nodes())
        started = [self._start(["--address", f"127.0.0.1:{self.port}", *words], {}) for words in nodes]
        self.until(lambda: len(self.nodes()) == before + len(nodes), "more nodes")
        return started

    def _start(self, words: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        command = ["ray", "start", "--block", "--object-store-memory", str(STORE), *words]
        command += [
            "--min-worker-port",
            "0",
            "--max-worker-port",
            "0",
            "--dashboard-agent-listen-port",
            str(free_port()),
        ]
        if "--head" not in words:  # nodes of one folder would unpack a job's code over each other
            command += ["--temp-dir", tempfile.mkdtemp(dir=self.folder)]
        with open(self.folder / "nodes.log", "ab") as log:
            self.running.append(
                subprocess.Popen(command, env=self.environment | more, stdout=log, stderr=log, start_new_session=True)
            )
        return self.running[-1]

    def submit(self, *words: str) -> subprocess.Popen[str]:
        """Begin `cluster/submit.sh <words>`, which ends when the job has."""
        return subprocess.Popen(
            ["cluster/submit.sh", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop_job(self) -> None:
        """Stop the job that runs, as a user would."""
        running = next(each for each in self.ask("/api/jobs/") if each["status"] == "RUNNING")
        subprocess.run(["ray", "job", "stop", running["submission_id"]], env=self.environment, check=True)

    def ask(self, path: str) -> Any:
        """Return what the dashboard says."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dashboard}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def states(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of `nodes`, `actors` or `tasks`; none while no head answers."""
        try:
            found: list[dict[str, Any]] = self.ask(f"/api/v0/{kind}?detail=1&limit=10000")["data"]["result"]["result"]
        except (OSError, urllib.error.URLError, KeyError, TypeError):
            return []
        return found

    def nodes(self) -> list[str]:
        """Return what each node that lives is: `head`, `cpu` or `gpu`."""
        return [role(node) for node in self.states("nodes") if node["state"] == "ALIVE"]

    def placed(self) -> dict[str, dict[str, int]]:
        """Return how many shards each stage of the caption jobs took on each kind of node."""
        kinds = {node["node_id"]: role(node) for node in self.states("nodes")}
        found: dict[str, Counter[str]] = {}
        for task in self.states("tasks"):
            stage = re.fullmatch(r"(?:MapWorker\()?MapBatches\((\w+)\)\)?(?:\.submit)?", task["name"])
            if stage and task["state"] == "FINISHED":
                found.setdefault(stage[1], Counter())[kinds[task["node_id"]]] += 1
        return {stage: dict(counts) for stage, counts in found.items()}

    def metrics(self) -> dict[str, set[str]]:
        """Return what Prometheus would find on the nodes: each metric with its labels."""
        listed = self.folder / "ray" / "prom_metrics_service_discovery.json"
        found: dict[str, set[str]] = {}
        for target in json.loads(listed.read_text())[0]["targets"]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as reply:
                for name, labels in re.findall(r"^(\w+)(?:{(.*)})? ", reply.read().decode(), re.MULTILINE):
                    found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
        return found

    def until(self, happens: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Wait for something and return it."""
        deadline = time.monotonic() + patience_s
        while not (found := happens()):
            assert time.monotonic() < deadline, f"no {what} in {patience_s} s: {self.log()}"
            time.sleep(0.3)
        return found

    def log(self) -> str:
        """Return the end of what the nodes said."""
        return (self.folder / "nodes.log").read_text(errors="replace")[-2000:]

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill every process of a node at once, as a machine that is gone."""
        for pid in [node.pid, *descendants(node.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()
        self.running.remove(node)

    def close(self) -> None:
        """Kill all that is left of it, the autoscaler's nodes included, and remove its folder."""
        for node in list(self.running):
            self.kill(node)
        mine = f"RAY_TMPDIR={self.folder}".encode()
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and mine in (path / "environ").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)
            except OSError:
                continue  # it has ended meanwhile
        shutil.rmtree(self.folder, ignore_errors=True)


class Provider(FakeMultiNodeProvider):
    """Ray's fake multi-node provider, whose nodes offer the memory of their type as those of a real one do."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: dict[str, Any], labels: Any
    ) -> None:
        number = self._next_hex_node_id()
        node = Node(
            RayParams(
                min_worker_port=0,
                max_worker_port=0,
                dashboard_agent_listen_port=0,
                num_cpus=resources.get("CPU", 0),
                num_gpus=resources.get("GPU", 0),
                memory=resources["memory"],
                object_store_memory=STORE,
                redis_address=self._gcs_address,
                gcs_address=self._gcs_address,
                temp_dir=tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"]),
                env_vars={
                    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": number,
                    "RAY_CLOUD_INSTANCE_ID": number,
                    "RAY_NODE_TYPE_NAME": tags[TAG_RAY_USER_NODE_TYPE],
                },
            ),
            head=False,
            shutdown_at_exit=False,
            spawn_reaper=False,
        )
        state = {"ray-node-type": "worker", "ray-node-name": number, "ray-node-status": "up-to-date"}
        self._nodes[number] = {"tags": {**state, **tags}, "node": node}


def autoscaler(types: dict[str, dict[str, Any]], address: str) -> dict[str, Any]:
    """Return the autoscaler's config for node types {name: {resources, min_workers, max_workers}}."""
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake",
        "provider": {
            "type": "external",
            "module": "tests.support.nodes.Provider",
            "gcs_address": address,
            **dict.fromkeys(("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check"), True),
        },
        "max_workers": sum(each["max_workers"] for each in types.values()),
        "idle_timeout_minutes": 0.2,
        "upscaling_speed": 100.0,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{name: {"node_config": {}, **each} for name, each in types.items()},
        },
        **{f"{name}_commands": [] for name in lists},
        **{"auth": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False},
        **{"rsync_exclude": [], "rsync_filter": []},
    }


def role(node: dict[str, Any]) -> str:
    """Return what a node is: `head`, `cpu` or `gpu`."""
    return "head" if node["is_head_node"] else "gpu" if node["resources_total"].get("GPU") else "cpu"


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit():
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(path.name))
        except OSError:
            continue
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
