"""Shared fixtures: one Ray per session, a tiny corpus, checkpoints with random weights, real data where it is."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline import sources, storage
from pipeline.configs import SYNTH
from pipeline.synth import SynthConfig
from pipeline.synth import run as run_synth
from train import checkpoint
from train.captioner import train as train_captioner
from train.configs import CAPTIONER, TINY_CLAP
from train.loop import Context
from train.models.clap import Clap
from train.models.text import build_tokenizer

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real local Ray, started once: starting one takes ten seconds."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", ignore_reinit_error=True)
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
def captioner(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A captioner trained for seconds: its captions are poor, but they are captions."""
    out = str(tmp_path_factory.mktemp("captioner"))
    config = CAPTIONER["tiny"][1]
    config = dataclasses.replace(config, source=(storage.join(corpus, "captioned_segments.csv"),), out=out)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=8))
    train_captioner({"config": config, "out": out, "broken": {}}, Context())
    return out


@pytest.fixture(scope="session")
def clap(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A two-tower checkpoint with random weights."""
    clips = sources.read_clips(storage.join(corpus, "captioned_segments.csv"))
    torch.manual_seed(0)
    model = Clap(TINY_CLAP, build_tokenizer((c for clip in clips for c in clip.captions), 500))
    out = str(tmp_path_factory.mktemp("clap"))
    checkpoint.save(out, model, {}, [])
    return out


@pytest.fixture(scope="session")
def blat_data() -> Path:
    """The folder of real clips, from BLAT_DATA; tests that need it are skipped with the reason where it is absent."""
    folder = Path(os.environ.get("BLAT_DATA", "../shared/data"))
    if not (folder / "esc50" / "metadata.csv").exists():
        pytest.skip(f"no real audio at {folder}; set BLAT_DATA to a folder that has esc50/metadata.csv")
    return folder
