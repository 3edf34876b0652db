"""The engine in this process: the same bytes as on Ray, without Ray, and errors and Ctrl-C as the command line has them."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.configs import RECAPTION, SCORE
from pipeline.dataset import shards
from pipeline.errors import InputError, JobError
from pipeline.graph import caption_graph, engine
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.planning.plan import read_plan
from pipeline.stages import audit, caption, export, recaption, score, verify
from pipeline.stages.audit import AuditConfig
from pipeline.stages.export import ExportConfig
from pipeline.stages.recaption import RecaptionConfig
from pipeline.stages.score import ScoreConfig
from pipeline.stages.verify import VerifyConfig

IN_PROCESS = ActorConfig(max=0)


def files(folder: str) -> dict[str, bytes]:
    """Return what readers of a dataset or an overlay see, without the config that made it."""
    found = (path for path in Path(folder).iterdir() if path.is_file() and path.name not in ("run.json", "README.md"))
    return {path.name: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def made_on_ray(ray_session: None, caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset of the session's config, made on Ray."""
    out = str(tmp_path_factory.mktemp("on_ray"))
    caption.run(dataclasses.replace(caption_config, out=out, actors=ActorConfig()))
    return out


def test_a_dataset_has_the_bytes_of_one_made_on_ray(made_on_ray: str, dataset: str) -> None:
    assert files(dataset) == files(made_on_ray) and "sizes.json" in files(dataset)


def test_a_job_begun_on_ray_goes_on_in_process(made_on_ray: str, caption_config: CaptionConfig, tmp_path: Path) -> None:
    out = str(shutil.copytree(made_on_ray, tmp_path / "copy"))
    for name in ("00001.tar", "00001.parquet", "00001_stats.json", "sizes.json"):
        Path(out, name).unlink()
    caption.run(dataclasses.replace(caption_config, out=out))
    assert files(out) == files(made_on_ray)


def test_overlays_and_exports_have_the_bytes_of_those_made_on_ray(
    ray_session: None, dataset: str, caption_config: CaptionConfig, clap: str, tmp_path: Path
) -> None:
    again: RecaptionConfig = dataclasses.replace(RECAPTION["tiny"][1], captioner=caption_config.captioner)
    scored: ScoreConfig = dataclasses.replace(SCORE["tiny"][1], model=clap)
    outs = []
    for name, actors in (("ray", ActorConfig()), ("here", IN_PROCESS)):
        data = str(shutil.copytree(dataset, tmp_path / name))
        here = actors.in_process
        recaption.run(dataclasses.replace(again, data=data, name="again", actors=actors))
        score.run(dataclasses.replace(scored, data=data, name="scored", captions="again", actors=actors))
        audit.run(AuditConfig(data=data, name="audited", in_process=here))
        export.run(ExportConfig(data=data, out=f"{data}/export", clips_per_shard=5, rate=16_000, in_process=here))
        verify.run(VerifyConfig(data=data, in_process=here))
        outs.append(
            [
                files(f"{data}/{folder}")
                for folder in ("overlays/again", "overlays/scored", "overlays/audited", "export")
            ]
        )
    assert outs[0] == outs[1]


def test_in_process_ray_is_not_imported(caption_config: CaptionConfig, tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.__main__ import STAGES; from pipeline.cli import main;"
        "code = main('pipeline', '', STAGES);"
        "assert 'ray' not in sys.modules; sys.exit(code)"
    )
    words = ["--source", caption_config.source, "--captioner", caption_config.captioner, "--actors.max", "0"]
    words += ["--out", str(tmp_path / "data"), "--audio-filter.drop-copies"]
    subprocess.run([sys.executable, "-c", program, "caption", "tiny", *words], check=True)
    assert shards.finished(str(tmp_path / "data"))


WITHOUT_TORCH = """
import json, sys
from pipeline.__main__ import STAGES
from pipeline.cli import main
for words, code in json.loads(sys.argv[1]):
    assert main("pipeline", "", STAGES, words) == code, words
    assert "torch" not in sys.modules, words
assert "ray" in sys.modules
"""


@pytest.mark.ray
def test_the_driver_of_a_job_on_ray_does_not_import_torch(
    caption_config: CaptionConfig, clap: str, tmp_path: Path
) -> None:
    """Its import takes two seconds, before the first shard."""
    data = ["--data", str(tmp_path / "data")]
    captioner = ["--captioner", caption_config.captioner]
    source = ["--source", caption_config.source, "--out", str(tmp_path / "data")]
    commands = [
        (["caption", "tiny", *source, *captioner, "--audio-filter.drop-copies"], 0),
        (["recaption", "tiny", *data, *captioner, "--name", "again"], 0),
        (["score", "tiny", *data, "--model", clap, "--name", "scored"], 0),
        (["retry", *data, "--reason", "missing"], 2),  # no clip failed so, which is found out after all checks
    ]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)], check=True)
    assert shards.finished(str(tmp_path / "data"))


class Failing:
    """A step that raises at one shard."""

    def __init__(self, at: int, error: Exception) -> None:
        self.at, self.error = at, error

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch["shard"].to_pylist() == [self.at]:
            raise self.error
        return batch


WRONG = InputError("--columns", "x", "no such column")
ERRORS = [
    (JobError("no GPU"), "no GPU; 3 of 9 shards were done before that"),
    (WRONG, str(WRONG)),
    (ValueError("bug"), "bug"),
]


@pytest.mark.parametrize(("error", "message"), ERRORS, ids=["job", "input", "bug"])
def test_an_error_in_a_step_is_raised_and_threads_end(error: Exception, message: str) -> None:
    before = threading.active_count()
    found = engine.rows(range(9), engine.Tasks(Failing(3, error)), in_process=True)
    with pytest.raises(type(error)) as caught:
        list(found)
    assert str(caught.value) == message and threading.active_count() == before


class Broken:
    """An actor that cannot be made."""

    def __init__(self) -> None:
        raise JobError("no GPU")


def same(batch: pa.Table) -> pa.Table:
    return batch


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (engine.Tasks(Failing(1, WRONG)), WRONG),
        (engine.Actors(Failing, (1, WRONG), ActorConfig()), WRONG),
        (engine.Actors(Broken, (), ActorConfig()), JobError("no GPU; 0 of 2 shards were done before that")),
    ],
    ids=["task", "actor", "start of an actor"],
)
def test_on_ray_the_error_of_a_step_comes_without_a_traceback_of_ray(
    ray_session: None, step: engine.Tasks | engine.Actors, error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        list(engine.rows(range(2), step, engine.Tasks(same), in_process=False))
    assert type(caught.value) is type(error) and str(caught.value) == str(error)


def test_on_ray_a_single_call_raises_its_error_without_a_traceback_of_ray(ray_session: None) -> None:
    def fail(shards: pa.Table) -> pa.Table:  # Ray takes functions, no other callables
        return Failing(1, WRONG)(shards)

    with pytest.raises(InputError) as caught:
        engine.run_single(fail, pa.table({"shard": [1]}), in_process=False)
    assert type(caught.value) is InputError and str(caught.value) == str(WRONG)


def test_rows_come_in_order_and_only_a_few_shards_are_worked_ahead() -> None:
    begun: list[int] = []

    def step(batch: pa.Table) -> pa.Table:
        begun.append(batch["shard"][0].as_py())
        return batch

    found = engine.rows(
        range(50), engine.Tasks(step), engine.Actors(Failing, (99, ValueError()), IN_PROCESS), in_process=True
    )
    assert [next(found)["shard"] for _ in range(3)] == [0, 1, 2]
    assert len(begun) <= 3 + 2 * (engine.CONCURRENT + 1)
    found.close()
    assert len(begun) <= 3 + 2 * (engine.CONCURRENT + 1)


def test_tasks_ask_for_the_memory_that_a_large_shard_takes(
    ray_session: None, caption_config: CaptionConfig, dataset: str
) -> None:
    import ray

    plan = read_plan(dataset)
    assert plan
    long = dataclasses.replace(plan, num_clips=1_000, clips_per_shard=512, duration_s=30_000.0)
    reading, _, writing = caption_graph.build_graph(caption_config, dataset, long, clip_s=10.0)
    assert isinstance(reading, engine.Tasks) and reading.memory == 512 * 10 * 32_000 * 2
    assert isinstance(writing, engine.Tasks) and writing.memory == 512 * 30 * 32_000 * 2
    largest = max(int(node["Resources"]["memory"]) for node in ray.nodes())
    asked = [engine._memory(engine.Tasks(same, memory)) for memory in (0, 700 * 2**20, 2**60)]
    assert asked == [engine.TASK_MEMORY, 900 * 2**20, largest], "no node could start the last one"


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    actors = engine.Actors(Failing, (99, ValueError()), ActorConfig(max=0, gpus=1.0))
    with pytest.raises(InputError, match=r"--actors\.gpus"):
        list(engine.rows([0], actors, in_process=True))


def test_ctrl_c_ends_it_and_the_same_command_goes_on(
    dataset: str, corpus: str, caption_config: CaptionConfig, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    command = [sys.executable, "-m", "pipeline", "caption", "tiny", "--actors.max", "0", "--out", str(out)]
    command += ["--source", caption_config.source, "--captioner", caption_config.captioner]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out / "plan.json").exists():
        assert driver.poll() is None
        time.sleep(0.01)
    driver.send_signal(signal.SIGINT)
    _, message = driver.communicate(timeout=120)
    assert driver.returncode in (130, 0) and "Traceback" not in message
    assert subprocess.run(command, check=False).returncode == 0
    assert files(str(out)) == files(dataset)
