"""The shell scripts around Ray jobs, with stand-ins for Ray's client and its job server, and what a job is shipped with.

`test_cluster_live.py` has them on a real cluster.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import promql_parser
import pytest
import yaml

from pipeline.graph import metrics
from tests.support.nodes import free_port
from train.trainer import monitor
from train.trainer.step_clock import StepTimes

TOKEN = "t" * 64
RAY = """
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    environment = sys.argv[sys.argv.index("--runtime-env") + 1] if "submit" in sys.argv else os.devnull
    print(json.dumps([sys.argv[1:], open(environment).read()]), file=calls)
print(os.environ["ENDS"])
"""


class JobServer(BaseHTTPRequestHandler):
    """Knows one token and no job."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("Authorization") == f"Bearer {TOKEN}" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Submission:
    """Runs `cluster/submit.sh`; `calls` are the words that Ray's client was given, each with the environment of the job."""

    def __init__(self, folder: Path, port: int) -> None:
        ray = folder / "bin" / "ray"
        ray.parent.mkdir()
        ray.write_text(f"#!{sys.executable}\n{RAY}")
        ray.chmod(0o755)
        self.log = folder / "calls"
        self.environment = os.environ | {
            "PATH": f"{ray.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CALLS": str(self.log),
            "ENDS": "Job 'blat' succeeded",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
            "RAY_AUTH_TOKEN": TOKEN,
        }

    def run(self, *words: str, **changed: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["cluster/submit.sh", *words],
            env=self.environment | changed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Submission]:
    with ThreadingHTTPServer(("127.0.0.1", 0), JobServer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Submission(tmp_path, server.server_port)
        server.shutdown()


WHOLE = ("pipeline", "verify", "--data", "/nowhere")


def test_no_word_of_a_command_reaches_a_shell(submission: Submission, tmp_path: Path) -> None:
    """Ray's client gets the words as they are."""
    words = [
        f"$(touch {tmp_path}/a)",
        f"`touch {tmp_path}/b`",
        f";touch${{IFS}}{tmp_path}/c",
        f"&& touch {tmp_path}/d #'",
    ]
    before = {path.name for path in tmp_path.iterdir()}
    assert submission.run(*WHOLE, *words).returncode == 0
    (submitted, _), (asked, _) = submission.calls
    assert submitted[submitted.index("--") + 1 :] == ["python", "-m", *WHOLE, *words]
    assert asked[:2] == ["job", "status"] and asked[-1] in submitted
    assert {path.name for path in tmp_path.iterdir()} == before | {"calls"}


def test_a_script_is_run_by_bash(submission: Submission) -> None:
    assert submission.run("cluster/bootstrap.sh", "s3://corpus", "s3://blat").returncode == 0
    submitted = submission.calls[0][0]
    assert submitted[submitted.index("--") + 1 :] == ["bash", "cluster/bootstrap.sh", "s3://corpus", "s3://blat"]


@pytest.mark.parametrize("ends", ["Job 'blat' failed", "Job 'blat' was stopped", "no such job"])
def test_a_job_that_has_not_succeeded_is_an_error(submission: Submission, ends: str) -> None:
    done = submission.run(*WHOLE, ENDS=ends)
    assert done.returncode == 1 and "goes on from storage" in done.stderr


def test_variables_are_handed_to_a_job_by_name(submission: Submission) -> None:
    assert submission.run(*WHOLE, PASS_ENV="HANDED", HANDED="c d").returncode == 0
    assert yaml.safe_load(submission.calls[0][1])["env_vars"]["HANDED"] == "c d"
    forgotten = submission.run(*WHOLE, PASS_ENV="FORGOTTEN")
    assert forgotten.returncode == 1 and "FORGOTTEN" in forgotten.stderr
    assert len(submission.calls) == 2, "it was sent all the same"


@pytest.mark.parametrize(
    ("words", "changed", "code", "named"),
    [
        (("pipeline", "verify"), {}, 2, "usage: cluster/submit.sh"),
        (("pipeline", "caption", "demo", "--out", "cluster/out"), {}, 2, "cluster/out: "),
        (WHOLE, {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{free_port()}"}, 1, "ray start --head"),
        (WHOLE, {"RAY_AUTH_TOKEN": "0" * 64}, 1, "RAY_AUTH_TOKEN"),
    ],
    ids=["too few words", "a path of this folder", "no cluster", "another token"],
)
def test_what_cannot_work_is_refused_here(
    submission: Submission, words: tuple[str, ...], changed: dict[str, str], code: int, named: str
) -> None:
    """In one line each, before anything is sent."""
    done = submission.run(*words, **changed)
    assert done.returncode == code and named in done.stderr and not done.stdout
    assert code == 2 or done.stderr.count("\n") == 1
    assert not submission.calls


def test_the_dashboard_asks_for_our_metrics_by_their_names() -> None:
    """Every query parses."""
    board = json.loads(Path("cluster/grafana.json").read_text())
    names = {*re.findall(r'"(train/\w+)"', inspect.getsource(monitor))} | {
        f"train/{part}_time" for part in StepTimes._fields
    }
    made = {f"blat_{name.replace('/', '_')}" for name in names}
    made |= set(re.findall(r'"(blat_\w+)"', inspect.getsource(metrics)))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 15
    for query in queries:
        promql_parser.parse(query)
        assert {name.removesuffix("_total") for name in re.findall(r"ray_(blat_\w+)(?![\w.])", query)} <= made, query


def test_a_folder_with_more_than_code_is_not_shipped(tmp_path: Path) -> None:
    script = Path("cluster/submission.py").resolve()
    (tmp_path / "cluster").mkdir()
    shutil.copy("cluster/runtime_env.yaml", tmp_path / "cluster")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)

    def environment() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), "here"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for name, megabytes in (("weights.pth", 15), ("audio.tar", 16)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(megabytes * 10**6)
    refused = environment()
    assert refused.returncode == 1 and "31 MB, more than 20" in refused.stderr and "audio.tar" in refused.stderr
    (tmp_path / ".gitignore").write_text("*.tar\n")
    assert yaml.safe_load(environment().stdout) == yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())


def test_a_job_ships_the_code_alone(tmp_path: Path) -> None:
    """By Ray's own packing."""
    from ray._private.runtime_env import packaging

    excludes = yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())["excludes"]
    packed = tmp_path / "package.zip"
    packaging.create_package(str(Path.cwd()), packed, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(packed) as package:
        rooms = {name.split("/")[0] for name in package.namelist()}
    assert {"pipeline", "train", "eval", "cluster"} <= rooms
    assert not rooms & {".git", ".venv", "build", "tests"}
    assert packed.stat().st_size < 2 * 2**20


def test_shell_scripts_pass_shellcheck() -> None:
    scripts = sorted(map(str, Path("cluster").glob("*.sh")))
    assert scripts
    subprocess.run(["shellcheck", *scripts, ".ci/run"], check=True)


def test_a_node_without_the_authority_is_told_what_it_lacks(tmp_path: Path) -> None:
    refused = subprocess.run(["cluster/tls.sh", "node", str(tmp_path)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "lacks ca.crt or ca.key" in refused.stderr and not list(tmp_path.iterdir())
