"""What happens to jobs on clusters: nodes come, go and are killed. `make cluster-test` runs these, in minutes."""

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.__main__ import STAGES
from pipeline.cli import main
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex
from tests.bench.chaos import contents
from tests.support.nodes import CPU_NODE, DECODES, GPU_NODE, Cluster

pytestmark = pytest.mark.cluster
NUM_CLIPS, NUM_SHARDS = 80, 40
EPOCHS = 72


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips enough for a job to be killed in."""
    out = str(tmp_path_factory.mktemp("tagged"))
    assert main("pipeline", "", STAGES, ["synth", "tiny", "--num-tagged", str(NUM_CLIPS), "--out", out]) == 0
    return f"{out}/tagged_segments.csv"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


def caption(tagged: str, captioner: str, out: Path) -> list[str]:
    words = ["pipeline", "caption", "tiny", "--source", tagged, "--captioner", captioner, "--clips-per-shard", "2"]
    return [*words, "--actors.gpus", "1", "--actors.max", "2", "--actors.rehearse", "--out", str(out)]


def finished(job: subprocess.Popen[str], patience_s: float = 400) -> str:
    output, _ = job.communicate(timeout=patience_s)
    assert job.returncode == 0, output[-4000:]
    return output


def marks(out: Path) -> dict[str, int]:
    """Return {shard: when it was written}."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


@pytest.fixture(scope="module")
def whole(tagged: str, captioner: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset by Ray's autoscaler over its fake multi-node provider: from no node but the head, and back."""
    out = tmp_path_factory.mktemp("whole") / "out"
    cpu = {"resources": {"CPU": 1, "memory": DECODES}, "min_workers": 0, "max_workers": 1}
    gpu = {"resources": {"CPU": 1, "GPU": 1, "memory": 1}, "min_workers": 0, "max_workers": 2}
    cluster = Cluster()
    try:
        cluster.start({"cpu": cpu, "gpu": gpu})
        assert cluster.nodes() == ["head"]
        job = cluster.submit(*caption(tagged, captioner, out), "--actors.min", "2")
        cluster.until(lambda: cluster.nodes().count("gpu") == 2 or job.poll() is not None, "two nodes with GPUs")
        assert cluster.nodes().count("gpu") == 2, finished(job)
        assert f"{NUM_CLIPS} clips = {NUM_CLIPS} written" in finished(job)
        placed = cluster.placed()
        cluster.until(lambda: cluster.nodes() == ["head"], "cluster that shrinks when idle")
    finally:
        cluster.close()
    assert placed == {
        "Reader": {"cpu": NUM_SHARDS},
        "CaptionActor": {"gpu": NUM_SHARDS},
        "write_shard": {"cpu": NUM_SHARDS},
    }
    return out


def test_gpu_nodes_come_for_a_job_and_go_after_it(whole: Path) -> None:
    assert len(ClipIndex(str(whole))) == NUM_CLIPS


def test_captioning_survives_a_lost_node_and_a_lost_head(
    cluster: Cluster, tagged: str, captioner: str, whole: Path, tmp_path: Path
) -> None:
    """A node dies, and the job goes on; every process dies, and the same command on a new cluster goes on from storage."""

    def begin(out: Path) -> subprocess.Popen[str]:
        job = cluster.submit(*caption(tagged, captioner, out))
        found = cluster.until(lambda: len(shards.committed(str(out))) >= 5 and marks(out), "shard")
        assert len(found) < NUM_SHARDS and job.poll() is None, "too late to lose anything"
        return job

    cluster.start()
    nodes = cluster.add(CPU_NODE, CPU_NODE, GPU_NODE)
    job = begin(out := tmp_path / "lost_node")
    cluster.kill(nodes[0])
    kept = marks(out)
    finished(job)
    assert marks(out).items() >= kept.items() and contents(out) == contents(whole)

    job = begin(out := tmp_path / "lost_head")
    cluster.close()
    kept = marks(out)
    job.communicate(timeout=60)
    again = Cluster()
    try:
        again.start()
        again.add(CPU_NODE, GPU_NODE)
        output = finished(again.submit(*caption(tagged, captioner, out)))
    finally:
        again.close()
    assert f"{NUM_SHARDS} shards, {len(kept)} committed" in output
    assert marks(out).items() >= kept.items() and contents(out) == contents(whole)


def test_training_survives_a_lost_node(cluster: Cluster, dataset: str, tmp_path: Path) -> None:
    """Two workers on two nodes; one node dies in the middle of an epoch, and no step is lost."""
    cluster.environment |= {"RAY_metrics_report_interval_ms": "1000"}  # to see the loss before it is over
    cluster.start()
    nodes = cluster.add(CPU_NODE, CPU_NODE)
    words = ["train", "pretrain", "tiny", "--data", dataset, "--optim.epochs", str(EPOCHS), "--optim.save-every-s", "0"]
    words += ["--scale.num-workers", "2", "--scale.min-workers", "1", "--out", str(tmp_path / "out")]
    cluster.environment |= {"PASS_ENV": "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"}
    cluster.environment |= {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "40"}
    job = cluster.submit(*words)

    def steps() -> int:
        states = (tmp_path / "out" / "training_state").glob("*.json")
        return max((int(path.stem) for path in states), default=0)

    cluster.until(lambda: steps() >= 6, "step")
    cluster.until(lambda: "run" in cluster.metrics().get("ray_blat_train_loss", ()), "loss for Prometheus")
    assert steps() < 3 * EPOCHS - 20, "too late to lose anything"
    cluster.kill(nodes[0])
    assert "continues at step" in finished(job)
    assert len(storage.read_json(str(tmp_path / "out" / "history.json"))["loss"]) == 3 * EPOCHS


def test_connections_can_be_encrypted(cluster: Cluster, tmp_path: Path) -> None:
    """cluster/tls.sh: a job runs over TLS, the port speaks nothing else, and other authorities are not believed."""
    folder, other, script = tmp_path / "tls", tmp_path / "other", tmp_path / "ask.sh"
    for words in (("authority", folder), ("node", folder), ("authority", other)):
        subprocess.run(["cluster/tls.sh", *words], check=True)
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
    variables = dict(re.findall(r"export (\w+)=(.*)", (folder / "tls.env").read_text()))
    cluster.environment |= {**variables, "PASS_ENV": " ".join(variables)}
    cluster.start()
    cluster.add(CPU_NODE)
    script.write_text('python -c "import ray; ray.init(); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"')
    assert "42" in finished(cluster.submit(str(script), "a", "b"))
    for authority, believed in ((folder, True), (other, False)):
        context = ssl.create_default_context(cafile=str(authority / "ca.crt"))
        context.load_cert_chain(folder / "node.crt", folder / "node.key")
        with socket.create_connection(("127.0.0.1", cluster.port)) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                    assert believed
            except ssl.SSLCertVerificationError:
                assert not believed


def test_the_whole_loop_from_bucket_to_bucket(
    cluster: Cluster, s3: str, corpus: str, captioner: str, tmp_path: Path
) -> None:
    """cluster/bootstrap.sh at a small size; stopped in the middle, the same command goes on."""
    tables = {
        "audioset/unbalanced_train_segments.csv": "tagged_segments.csv",
        "lists/eval_segments.csv": "evaluation_segments.csv",
        "audiocaps/train.csv": "captioned_segments_captions.csv",
        "audiocaps/train_segments.csv": "captioned_segments.csv",
        "audiocaps/val.csv": "evaluation_segments_captions.csv",
        "audiocaps/test.csv": "evaluation_segments_captions.csv",
        "audiocaps/eval_segments.csv": "evaluation_segments.csv",
        "tasks/synth/evaluation_segments.csv": "evaluation_segments.csv",
        "tasks/synth/evaluation_segments_captions.csv": "evaluation_segments_captions.csv",
    }
    for name, source in tables.items():
        storage.publish(f"{s3}/loop/{name}", (Path(corpus) / source).read_bytes())
    for folder in ("audioset", "audiocaps", "tasks/synth"):
        for path in [Path(corpus, "class_labels_indices.csv"), *Path(corpus, "audio").iterdir()]:
            storage.publish(f"{s3}/loop/{folder}/{path.relative_to(corpus)}", path.read_bytes())
    for path in Path(captioner).iterdir():
        if path.is_file():
            storage.publish(f"{s3}/encoder/{path.name}", path.read_bytes())
    sizes = dict.fromkeys(("CAPTIONER", "CAPTION", "PRETRAIN", "SCORE", "SUITE"), "tiny")
    cluster.environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    cluster.environment |= {**sizes, "ENCODER": f"{s3}/encoder", "PASS_ENV": " ".join((*sizes, "ENCODER"))}
    cluster.start()
    cluster.add(("--num-cpus", "2", "--memory", str(DECODES)))
    job = cluster.submit("cluster/bootstrap.sh", f"{s3}/loop", f"{s3}/blat")
    cluster.until(lambda: storage.exists(f"{s3}/blat/captions/plan.json") or job.poll() is not None, "plan")
    assert job.poll() is None, finished(job)
    cluster.stop_job()
    assert job.wait(timeout=120) != 0
    output = finished(cluster.submit("cluster/bootstrap.sh", f"{s3}/loop", f"{s3}/blat"))
    assert f"{s3}/blat/captioner is complete already" in output
    found = storage.read_json(f"{s3}/blat/report/results.json")
    assert {"round1", "round2"} <= set(found)
