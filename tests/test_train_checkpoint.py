"""Checkpoints load without flags, bit for bit, and describe themselves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import storage
from pipeline.errors import InputError
from train import checkpoint
from train.models.captioner.model import TagGuidedCaptioner
from train.models.clap import Clap


@pytest.mark.parametrize(("fixture", "kind"), [("captioner", TagGuidedCaptioner), ("clap", Clap)])
def test_round_trip_is_bit_equal(fixture: str, kind: type, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    first = checkpoint.load(request.getfixturevalue(fixture))
    checkpoint.save(str(tmp_path), first.model, {"from": "test"}, ["a"])
    assert checkpoint.trained_on(str(tmp_path)) == {"a"}
    second = checkpoint.load(str(tmp_path))
    assert second.revision == first.revision
    assert second.info.lineage == {"from": "test"}
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not second.model.training


def test_padding_is_part_of_a_checkpoint_and_missing_in_older_ones(clap: str, tmp_path: Path) -> None:
    older, padded = checkpoint.load(clap), str(tmp_path / "padded")
    for name in storage.list_names(clap):
        storage.publish(storage.join(padded, name), storage.read(storage.join(clap, name)))
    config = storage.read_json(storage.join(clap, "config.json"))
    del config["network"]["padding"]
    storage.publish_json(storage.join(padded, "config.json"), config)
    assert checkpoint.load(padded).model.config.padding == "clip"
    model = checkpoint.load(padded).model
    model.config = dataclasses.replace(model.config, padding="none")
    checkpoint.save(str(tmp_path / "none"), model, {}, [])
    unpadded = checkpoint.load(str(tmp_path / "none"))
    assert unpadded.model.config.padding == "none"
    assert unpadded.revision != older.revision, "embeddings of the two must not share a cache"
    clip = np.random.default_rng(0).integers(-9_000, 9_000, 20_000).astype(np.int16)
    assert not torch.allclose(unpadded.model.embed_clips([clip]), older.model.embed_clips([clip]), atol=1e-4)


def test_wrong_kind_and_no_checkpoint_name_the_flag(captioner: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--model .* holds a captioner, not a clap"):
        checkpoint.describe(captioner, "--model", "clap")
    with pytest.raises(InputError, match=r"--captioner .* no checkpoint there"):
        checkpoint.describe(str(tmp_path), "--captioner", "captioner")


def test_missing_weights_are_an_error(clap: str, tmp_path: Path) -> None:
    for name in storage.list_names(clap):
        storage.publish(storage.join(str(tmp_path), name), storage.read(storage.join(clap, name)))
    config = json.loads((tmp_path / "config.json").read_text())
    config["network"]["joint_dim"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="size mismatch"):
        checkpoint.load(str(tmp_path))
