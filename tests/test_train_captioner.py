"""The captioner stage: where its audio encoder comes from, and what freezing it means."""

import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline import storage
from pipeline.cli import InputError
from train import checkpoint
from train.captioner import TrainCaptionerConfig, run
from train.configs import CAPTIONER
from train.models.mobilenet import MobileNetConfig
from train.models.tagger import Tagger, TaggerConfig


@pytest.fixture
def mn01(tmp_path: Path) -> str:
    """A converted tagger with random weights."""
    uri = str(tmp_path / "mn01")
    network = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=5)), list("abcde"))
    checkpoint.save(uri, network, {}, [])
    return uri


def config(corpus: str, tmp_path: Path, **changes: object) -> TrainCaptionerConfig:
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, audio=MobileNetConfig(width=0.1))
    source = (storage.join(corpus, "captioned_segments.csv"),)
    return dataclasses.replace(tiny, network=network, source=source, out=str(tmp_path / "captioner"), **changes)


def test_a_frozen_encoder_leaves_training_as_it_came(corpus: str, tmp_path: Path, mn01: str) -> None:
    run(config(corpus, tmp_path, init_audio=mn01, freeze_audio=True))
    made = checkpoint.load(str(tmp_path / "captioner"))
    before = checkpoint.load(mn01).model.encoder.state_dict()
    after = made.model.encoder.cnn.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert made.config["lineage"]["init_audio"] == mn01


def test_an_encoder_that_is_not_frozen_is_trained(corpus: str, tmp_path: Path, mn01: str) -> None:
    run(config(corpus, tmp_path, init_audio=mn01))
    before = checkpoint.load(mn01).model.encoder.state_dict()
    after = checkpoint.load(str(tmp_path / "captioner")).model.encoder.cnn.state_dict()
    changed = [name for name, tensor in after.items() if not torch.equal(before[name], tensor)]
    assert "features.0.0.weight" in changed
    assert "features.0.1.running_mean" in changed


def test_a_plain_captioner_trains_without_tags(corpus: str, tmp_path: Path) -> None:
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, guided=False, tagger=False)
    source = (storage.join(corpus, "captioned_segments.csv"),)
    run(dataclasses.replace(tiny, network=network, source=source, out=str(tmp_path / "plain")))
    model = checkpoint.load(str(tmp_path / "plain")).model
    assert model.label_encoder is None
    assert model.tagger is None


def test_freezing_needs_weights_and_they_must_fit(corpus: str, tmp_path: Path, mn01: str, clap: str) -> None:
    with pytest.raises(InputError, match="--init-audio is missing: a frozen audio encoder"):
        run(config(corpus, tmp_path, freeze_audio=True))
    with pytest.raises(InputError, match=r"--init-audio .*encoder is 'cnn14', wanted 'mobilenet'"):
        run(config(corpus, tmp_path, init_audio=clap))
    assert not (tmp_path / "captioner").exists()
