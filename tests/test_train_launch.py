"""Launching: what cannot work is refused before anything starts, and a worker's own words reach the user."""

import subprocess
import sys
from pathlib import Path

import pytest

import train.__main__ as train_room
from pipeline import cli, storage
from pipeline.errors import InputError
from train.launch import ScaleConfig, check
from train.trainer.optim import OptimConfig


@pytest.mark.parametrize(
    ("optim", "scale", "message"),
    [
        ({"batch_size": 2}, {"num_workers": 3}, r"at least --scale.num-workers \(3\)"),
        ({}, {"num_workers": 2, "min_workers": 3}, "--scale.min-workers 3"),
        ({"batch_size": 99}, {}, "1 to 20"),
        ({"batch_size": 0}, {}, "1 to 20"),
        ({"epochs": 0}, {}, "--optim.epochs 0"),
        ({"lr": float("nan")}, {}, "--optim.lr nan"),
        ({"warmup_fraction": 7.0}, {}, "--optim.warmup-fraction"),
        ({}, {"num_workers": -1}, "--scale.num-workers -1"),
        ({}, {"num_workers": 0, "gpu": True}, "--scale.gpu"),
    ],
)
def test_runs_that_cannot_be_made_are_refused(optim: dict, scale: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(ScaleConfig(**scale), OptimConfig(**({"batch_size": 10} | optim)), 20)
    check(ScaleConfig(num_workers=2), OptimConfig(batch_size=10), 20)


def test_a_loss_that_explodes_ends_with_one_line_and_exit_1(
    corpus: str, tmp_path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["captioner", "tiny", "--source", storage.join(corpus, "captioned_segments.csv"), "--out", str(tmp_path)]
    assert cli.main("train", "", train_room.STAGES, [*words, "--optim.lr", "1e30"]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "train captioner: loss is nan at step" in last
    assert "the clips were" in last


def test_broken_clips_are_told_left_out_and_too_many_end_the_job(
    corpus: str, tmp_path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("class_labels_indices.csv", "captioned_segments.csv", "captioned_segments_captions.csv"):
        storage.publish(str(tmp_path / name), storage.read(storage.join(corpus, name)))
    names = storage.list_names(storage.join(corpus, "audio"))
    for name in [name for name in names if "syncap" in name][2:]:
        storage.publish(str(tmp_path / "audio" / name), storage.read(storage.join(corpus, "audio", name)))
    words = ["captioner", "tiny", "--source", str(tmp_path / "captioned_segments.csv"), "--out", str(tmp_path / "out")]
    assert cli.main("train", "", train_room.STAGES, words) == 1
    assert "2 of 24 clips cannot be used" in capfd.readouterr().err
    assert cli.main("train", "", train_room.STAGES, [*words, "--max-bad-fraction", "0.1"]) == 0
    lineage = storage.read_json(str(tmp_path / "out" / "config.json"))["lineage"]
    assert lineage["num_clips"] == 22
    assert set(lineage["broken_clips"].values()) == {"missing"}


IN_PROCESS = """
import sys
from train.launch import ScaleConfig, launch
launch(lambda context: print(context.rank, context.world_size), ScaleConfig(num_workers=0), sys.argv[1])
assert "ray" not in sys.modules and "torch.distributed.fsdp" not in sys.modules
"""


def test_training_in_process_imports_neither_ray_nor_fsdp(tmp_path: Path) -> None:
    """They take six seconds."""
    done = subprocess.run([sys.executable, "-c", IN_PROCESS, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == "0 1\n"
