"""Stages as Ray jobs on a real cluster of three nodes, through its job server. `make cluster-test` runs these."""

import inspect
import json
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest

from pipeline.dataset.clip_index import ClipIndex
from tests.support.nodes import CPU_NODE, GPU_NODE, Cluster
from train.trainer import monitor

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, a node that decodes, a node with a GPU by its own word."""
    made = Cluster()
    try:
        made.start()
        made.add(CPU_NODE, GPU_NODE)
        yield made
    finally:
        made.close()


def test_decoding_runs_on_cpu_nodes_and_models_on_gpu_nodes(
    cluster: Cluster, corpus: str, captioner: str, tmp_path: Path
) -> None:
    """`cluster/submit.sh` as a user would, to a job server that asks for a token."""
    words = ["pipeline", "caption", "tiny", "--source", f"{corpus}/tagged_segments.csv", "--captioner", captioner]
    job = cluster.submit(*words, "--actors.gpus", "1", "--actors.rehearse", "--out", f"{tmp_path}/out")
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "24 clips = 24 written" in output
    assert len(ClipIndex(f"{tmp_path}/out")) == 24
    assert cluster.placed() == {"Reader": {"cpu": 3}, "CaptionActor": {"gpu": 3}, "write_shard": {"cpu": 3}}


def test_the_dashboard_shows_what_there_is(cluster: Cluster) -> None:
    """Every query parses, and asks for metrics and labels that the nodes have after a job."""
    board = json.loads(Path("cluster/grafana.json").read_text())
    exported = cluster.until(
        lambda: "ray_blat_clips_total" in (found := cluster.metrics()) and found, "metrics of a job"
    )
    trained = {
        f"ray_blat_{name.replace('/', '_')}" for name in re.findall(r'"(train/\w+)"', inspect.getsource(monitor))
    }
    exported |= {name: {"run", "SessionName"} for name in trained}
    exported["ray_node_gpus_utilization"] = exported["ray_node_cpu_utilization"]  # only where there are GPUs
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 15
    for query in queries:
        promql_parser.parse(query)
        for name, labels in re.findall(r"(ray_\w+){(.*?)}", query):
            assert name in exported, query
            grouped = re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", query)))
            assert {*grouped, *re.findall(r"(\w+)=", labels)} <= exported[name], (query, exported[name])


def test_the_job_server_asks_for_a_token(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{cluster.dashboard}/api/jobs/", timeout=30)
    assert refused.value.code == 401
    assert isinstance(cluster.ask("/api/jobs/"), list)


def test_no_word_of_a_command_reaches_a_shell(cluster: Cluster) -> None:
    """Names that a shell would run are named in the error, as they are; the job failed, and so does the client."""
    marks = Path(tempfile.mkdtemp(dir="/tmp"))  # short: errors cut long values
    words = [f"$(touch {marks}/a)", f"`touch {marks}/b`", f";touch${{IFS}}{marks}/c", f"&& touch {marks}/d #'"]
    job = cluster.submit("pipeline", "verify", "--data", "/nowhere/" + "|".join(words))
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "/nowhere/" + "|".join(words) in output
    assert not list(marks.iterdir())
    marks.rmdir()


def test_a_job_that_is_stopped_may_save(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('trap "sleep 8; touch $1; exit 1" TERM; touch $2; sleep 1000')
    job = cluster.submit(str(script), f"{tmp_path}/saved", f"{tmp_path}/started")
    cluster.until((tmp_path / "started").exists, "start of the job")
    cluster.stop_job()
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1 and "the same command goes on from storage" in output
    assert (tmp_path / "saved").exists()


def test_an_output_in_the_job_s_own_folder_is_refused(cluster: Cluster) -> None:
    job = cluster.submit("pipeline", "synth", "tiny", "--out", "out")
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1 and "--out 'out': lies in the job's copy of the code" in output


def test_variables_are_handed_to_a_job_by_name(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('test "$1 $2 $HANDED" = "a b c d" && echo "it arrived"')
    cluster.environment |= {"PASS_ENV": "HANDED", "HANDED": "c d"}
    output, _ = cluster.submit(str(script), "a", "b").communicate(timeout=120)
    assert "it arrived" in output
    cluster.environment |= {"PASS_ENV": "FORGOTTEN"}
    output, _ = cluster.submit(str(script), "a", "b").communicate(timeout=120)
    assert "PASS_ENV names FORGOTTEN, which is not set" in output
    del cluster.environment["PASS_ENV"]
