"""Shared fixtures: one Ray per session, a tiny corpus, checkpoints with random weights, real data where it is."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline import sources, storage
from pipeline.configs import CAPTION, SYNTH
from pipeline.graph.caption_graph import CaptionConfig
from pipeline.stages.caption import run as run_caption
from pipeline.stages.synth import SynthConfig
from pipeline.stages.synth import run as run_synth
from train import checkpoint
from train.configs import CAPTIONER, TINY_CLAP
from train.models import text
from train.models.clap import Clap
from train.stages.captioner import train as train_captioner
from train.trainer.loop import Context

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real local Ray, started once: starting one takes ten seconds."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", ignore_reinit_error=True)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny procedural corpus."""
    out = str(tmp_path_factory.mktemp("corpus"))
    config: SynthConfig = SYNTH["tiny"][1]
    run_synth(dataclasses.replace(config, out=out))
    return out


@pytest.fixture(scope="session")
def held_out(corpus: str) -> str:
    """The corpus' evaluation clips by a name that lets them be validated on."""
    for name in ("segments.csv", "segments_captions.csv"):
        storage.publish(
            storage.join(corpus, f"held_out_{name}"), storage.read(storage.join(corpus, f"evaluation_{name}"))
        )
    return storage.join(corpus, "held_out_segments.csv")


@pytest.fixture(scope="session")
def captioner(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A captioner trained for seconds: its captions are poor, but they are captions."""
    out = str(tmp_path_factory.mktemp("captioner"))
    config = CAPTIONER["tiny"][1]
    config = dataclasses.replace(config, source=(storage.join(corpus, "captioned_segments.csv"),), out=out)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=8))
    train_captioner({"config": config, "out": out, "broken": {}, "unheard": {}}, Context())
    return out


@pytest.fixture(scope="session")
def clap(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A two-tower checkpoint with random weights."""
    clips = sources.read_clips(storage.join(corpus, "captioned_segments.csv"))
    torch.manual_seed(0)
    model = Clap(TINY_CLAP, text.build(TINY_CLAP.text, (c for clip in clips for c in clip.captions)))
    out = str(tmp_path_factory.mktemp("clap"))
    checkpoint.save(out, model, {}, [])
    return out


@pytest.fixture(scope="session")
def caption_config(corpus: str, captioner: str) -> CaptionConfig:
    """Captions for the corpus' tagged clips, three shards of eight."""
    return dataclasses.replace(
        CAPTION["tiny"][1], source=storage.join(corpus, "tagged_segments.csv"), captioner=captioner
    )


@pytest.fixture(scope="session")
def dataset(ray_session: None, caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset of an uninterrupted run."""
    out = str(tmp_path_factory.mktemp("dataset"))
    run_caption(dataclasses.replace(caption_config, out=out))
    return out


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
