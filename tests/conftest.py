"""Shared fixtures: one Ray per session, a tiny corpus, checkpoints with random weights, real data where it is.

`make test` runs two processes of tests (pytest-xdist). All tests that use Ray run in one of them, and start first; the
tests of any other file run in one process, too. What is expensive to make is made once for both: see `made_once`.
"""

import dataclasses
import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from pipeline import sources, storage
from pipeline.configs import CAPTION, SYNTH
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.stages.caption import run as run_caption
from pipeline.stages.synth import SynthConfig
from pipeline.stages.synth import run as run_synth
from train import checkpoint
from train.configs import CAPTIONER, TINY_CLAP
from train.models import text
from train.models.clap import Clap
from train.stages.captioner import train as train_captioner
from train.trainer.context import Context

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.browser import Watched
    from tests.support.serving import Server

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put every test in the group "ray" or in that of its file; begin with Ray's, which take longest."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if _uses_ray(item) else item.path.stem))
    items.sort(key=lambda item: not _uses_ray(item))


def _uses_ray(item: pytest.Item) -> bool:
    return "ray_session" in getattr(item, "fixturenames", ()) or item.get_closest_marker("ray") is not None


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[str], None]) -> str:
    """Return a folder that `make` fills once for all processes of this run; no test may change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own in the one of the run
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(str(folder))
            done.touch()
    return str(folder)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real local Ray, started once: starting one takes ten seconds."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", ignore_reinit_error=True)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny procedural corpus, its evaluation clips also under names that let them be validated on."""

    def make(out: str) -> None:
        config: SynthConfig = SYNTH["tiny"][1]
        run_synth(dataclasses.replace(config, out=out))
        for name in ("segments.csv", "segments_captions.csv"):
            table = storage.read(storage.join(out, f"evaluation_{name}"))
            storage.publish(storage.join(out, f"held_out_{name}"), table)

    return made_once(tmp_path_factory, "corpus", make)


@pytest.fixture(scope="session")
def held_out(corpus: str) -> str:
    """The corpus' evaluation clips by a name that lets them be validated on."""
    return storage.join(corpus, "held_out_segments.csv")


@pytest.fixture(scope="session")
def captioner(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A captioner trained for seconds: its captions are poor, but they are captions."""

    def make(out: str) -> None:
        config = CAPTIONER["tiny"][1]
        config = dataclasses.replace(config, source=(storage.join(corpus, "captioned_segments.csv"),), out=out)
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=8))
        train_captioner(config, out, {}, {}, Context())

    return made_once(tmp_path_factory, "captioner", make)


@pytest.fixture(scope="session")
def clap(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A two-tower checkpoint with random weights."""

    def make(out: str) -> None:
        clips = sources.read_clips(storage.join(corpus, "captioned_segments.csv"))
        torch.manual_seed(0)
        model = Clap(TINY_CLAP, text.build(TINY_CLAP.text, (c for clip in clips for c in clip.captions)))
        checkpoint.save(out, model, {}, [])

    return made_once(tmp_path_factory, "clap", make)


@pytest.fixture(scope="session")
def caption_config(corpus: str, captioner: str) -> CaptionConfig:
    """Captions for the corpus' tagged clips, three shards of eight, in this process."""
    return dataclasses.replace(
        CAPTION["tiny"][1],
        source=storage.join(corpus, "tagged_segments.csv"),
        captioner=captioner,
        actors=ActorConfig(max=0),
    )


@pytest.fixture(scope="session")
def dataset(caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset of an uninterrupted run."""
    return made_once(tmp_path_factory, "dataset", lambda out: run_caption(dataclasses.replace(caption_config, out=out)))


@pytest.fixture(scope="session")
def search_index(dataset: str, clap: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search index of the dataset."""
    from tests.support.serving import make_index  # here: LanceDB and FastAPI take seconds

    return made_once(tmp_path_factory, "search_index", lambda out: make_index(out, dataset, clap))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real browser without a window; tests that need it are skipped with the reason where there is none."""
    from tests.support.browser import launched

    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_server(browser: "Browser", search_index: str) -> "Iterator[Server]":
    """The search page of the index, of the real stage."""
    from tests.support.serving import served

    with served(search_index, "--limits.rate", "0", "--limits.upload-mb", "1") as server:
        yield server


@pytest.fixture
def window(browser: "Browser", page_server: "Server") -> "Iterator[Watched]":
    """The page without a search. It writes no error and asks nobody else, whatever a test does."""
    from tests.support.browser import checked

    with checked(browser, page_server.url) as window:
        yield window


@pytest.fixture(scope="session")
def blat_data() -> Path:
    """The folder of real clips, from BLAT_DATA; tests that need it are skipped with the reason where it is absent."""
    folder = Path(os.environ.get("BLAT_DATA", "../shared/data"))
    if not (folder / "esc50" / "metadata.csv").exists():
        pytest.skip(f"no real audio at {folder}; set BLAT_DATA to a folder that has esc50/metadata.csv")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket on moto's server: a real HTTP endpoint in a process of its own.

    One per session: storage connects to a bucket once, so a second server would not be found.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    saved = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "moto's server ended"
                time.sleep(0.2)
        import boto3

        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="corpus")
        yield "s3://corpus"
    finally:
        server.kill()
        server.wait()
        os.environ.clear()
        os.environ.update(saved)
