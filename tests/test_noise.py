"""A healthy run shows no line that looks like an error; lines that are errors are shown, whatever happens."""

import os
import re
import signal
import subprocess
import sys

import pytest
from ray._private.services import find_gcs_addresses

from pipeline.graph.caption_config import CaptionConfig

ALARMING = re.compile(r"(?i)warn|error|traceback|exception|deprecat|fail(?!ed\b)|\b[1-9]\d* failed|core_worker")
HARMLESS = (
    "[2026-11-28 09:10:15,414 E 6880 6920] core_worker.cc:2465: Actor with class name: 'MapWorker(MapBatches(Captioner))' "
    "and ID: '4b95' has constructor arguments in the object store and max_restarts > 0. If the arguments go out of scope"
)


def run(*words: str) -> list[str]:
    """Run a command of the user's on the session's Ray, which has no dashboard; return all lines that it shows."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout.splitlines()


def test_healthy_runs_on_ray_show_nothing_alarming(
    ray_session: None,
    dataset: str,
    caption_config: CaptionConfig,
    clap: str,
    corpus: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("quiet")  # no word of its path is alarming
    source = ["--source", caption_config.source, "--captioner", caption_config.captioner]
    shown = run("pipeline", "caption", "tiny", "--actors.max", "1", *source, "--out", f"{folder}/data")
    assert any("24 clips = 24 written" in line for line in shown)
    shown += run("train", "pretrain", "tiny", "--data", dataset, "--scale.num-workers", "2", "--out", f"{folder}/model")
    assert any("step 6 of 6" in line for line in shown)
    task = ["--model", clap, "--task-dir", corpus, "--out", f"{folder}/results"]
    shown += run("eval", "retrieval", "demo", *task, "--workers", "2")
    assert any("24 clips embedded" in line for line in shown)
    several = len(find_gcs_addresses()) > 1 or any("multiple active Ray instances" in line for line in shown)
    if several:  # Ray's own cleaner gives up where it finds several Rays on a machine
        shown = [line for line in shown if "(PlacementGroupCleaner pid=" not in line]
    assert not [line for line in shown if ALARMING.search(line)]


def test_all_but_the_harmless_lines_are_shown_even_of_a_process_that_dies() -> None:
    """Lines that C++ code writes in pieces, one that is not ended, and Python's own; then SIGKILL."""
    program = f"""
import os, sys
from pipeline import ray_noise
ray_noise.hide()
line = {HARMLESS!r}.encode()
print("of Python", file=sys.stderr)
os.write(2, b"before\\n" + line[:50])
os.write(2, line[50:] + b"\\n[2026-11-28 E] core_worker.cc:1: a real error\\n")
os.write(2, line.replace(b"MapWorker", b"Mine") + b"\\n")
os.write(2, b"[last words")
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    real = ["[2026-11-28 E] core_worker.cc:1: a real error", HARMLESS.replace("MapWorker", "Mine")]
    assert sorted(done.stderr.splitlines()) == sorted(["of Python", "before", *real, "[last words"])
